//! `explain` of a path.

use bifrost_module_cache::{CachedModule, Cause, Diagnosis, RowState, Status};
use serde_json::{Value, json};

use super::diagnose::BothServers;
use super::explain_name::explain_name;
use super::finding::{Finding, from_both, from_redis};
use super::text;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output, harmless};
use crate::servers::Servers;

/// What is explained: a path, a name, or a name that led to a path.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub name: Option<&'a str>,
    pub path: Option<&'a str>,
}

/// What is known of it, beside the finding.
#[derive(Default)]
pub struct Facts<'a> {
    pub cached: Option<&'a CachedModule>,
    pub diagnosis: Option<&'a Diagnosis>,
}

pub fn explain(servers: &Servers<'_>, output: &mut Output, subject: &str) -> Result<Exit, Failure> {
    // No name has a slash, and none of a module ends so.
    let is_file = matches!(subject.rsplit_once('.'), Some((_, "py")));
    if is_file || subject.contains('/') {
        explain_path(servers, output, subject)
    } else {
        explain_name(servers, output, subject)
    }
}

fn explain_path(servers: &Servers<'_>, output: &mut Output, path: &str) -> Result<Exit, Failure> {
    let Some(database) = servers.database()? else {
        return with_redis(servers, output, None, path);
    };
    let diagnosis = BothServers::connect(servers, &database).and_then(|both| both.diagnose(path));
    match diagnosis {
        Ok(diagnosis) => with_both(servers, output, None, path, &diagnosis),
        // Redis alone still tells something.
        Err(failure) if failure.is_unavailable() => {
            with_redis(servers, output, None, path).and(Err(failure))
        }
        Err(failure) => Err(failure),
    }
}

pub fn with_redis(
    servers: &Servers<'_>,
    output: &mut Output,
    name: Option<&str>,
    path: &str,
) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    let failed = |error| servers.failure(error);
    let explanation = reader.explain(path).map_err(failed)?;
    let status = reader.status().map_err(failed)?;
    let (finding, cached) = match reader.get(path) {
        Ok(cached) => (from_redis(explanation), cached),
        Err(error) if error.is_corrupt() => (from_both(Cause::Corrupt), None),
        Err(error) => return Err(failed(error)),
    };
    let (path, cached) = (Some(path), cached.as_ref());
    let facts = Facts {
        cached,
        diagnosis: None,
    };
    print(
        servers,
        output,
        Subject { name, path },
        &finding,
        &facts,
        &status,
    )?;
    Ok(finding.exit)
}

pub fn with_both(
    servers: &Servers<'_>,
    output: &mut Output,
    name: Option<&str>,
    path: &str,
    diagnosis: &Diagnosis,
) -> Result<Exit, Failure> {
    let finding = from_both(diagnosis.cause);
    let facts = Facts {
        cached: diagnosis.cached.as_ref(),
        diagnosis: Some(diagnosis),
    };
    let path = Some(path);
    let status = &diagnosis.status;
    print(
        servers,
        output,
        Subject { name, path },
        &finding,
        &facts,
        status,
    )?;
    Ok(finding.exit)
}

pub fn print(
    servers: &Servers<'_>,
    output: &mut Output,
    subject: Subject<'_>,
    finding: &Finding,
    facts: &Facts<'_>,
    status: &Status,
) -> Result<(), Failure> {
    let database = match facts.diagnosis {
        Some(_) => servers.database()?.map(|it| it.address().to_owned()),
        None => None,
    };
    if output.json {
        return output.json(&json!({
            "name": subject.name,
            "path": subject.path,
            "cause": finding.cause,
            "why": finding.why,
            "remedy": finding.remedy,
            "cached": facts.cached.map(module_object),
            "database": facts.diagnosis.map(row_object),
            "status": text::status_name(status),
            "since": text::since(status).map(text::time),
            "servers": {"redis": servers.redis_address(), "database": database},
        }));
    }
    if !output.reports() {
        return Ok(());
    }
    let style = if finding.exit == Exit::Fine {
        GOOD
    } else {
        BAD
    };
    let title = output.paint(style, finding.title);
    let subjects: Vec<&str> = [subject.name, subject.path].into_iter().flatten().collect();
    let subjects = harmless(&subjects.join(", "));
    output.line(format_args!("{subjects}: {title}"))?;
    let completed = match text::since(status) {
        Some(since) => format!(
            "{} since {}",
            text::status_name(status),
            text::time_and_age(since)
        ),
        None => text::status_name(status).to_owned(),
    };
    let redis = match subject.path {
        Some(_) => format!("{}: {}", servers.redis(), entry(finding, facts)),
        None => servers.redis(),
    };
    let mut rows = vec![("redis", redis)];
    rows.push(("cache", completed));
    if let Some(diagnosis) = facts.diagnosis {
        let row = match &diagnosis.row {
            RowState::Module(module) => described(module),
            other => row_state(other).1.to_owned(),
        };
        let database = database.unwrap_or_default();
        rows.push(("database", format!("{database}: {row}")));
        let changed = diagnosis.changed.map(text::time_and_age);
        rows.extend(changed.map(|changed| ("changed", changed)));
    }
    rows.push(("why", finding.why.clone().into_owned()));
    if !finding.remedy.is_empty() {
        rows.push(("remedy", finding.remedy.to_owned()));
    }
    output.table(&rows)?;
    if finding.cause == "never_cached" && facts.diagnosis.is_none() {
        output.hint(
            "with a database (--database-url-file or DATABASE_URL) it tells whether there should be one",
        )?;
    }
    Ok(())
}

fn entry(finding: &Finding, facts: &Facts<'_>) -> String {
    match facts.cached {
        Some(module) => described(module),
        None if finding.cause == "corrupt" => "an entry that can't be read".to_owned(),
        None if finding.cause == "namespace" => "modules below it".to_owned(),
        None => "no module".to_owned(),
    }
}

fn described(module: &CachedModule) -> String {
    let hash = if module.hash.is_empty() {
        "no hash".to_owned()
    } else {
        format!("hash {}", harmless(&module.hash))
    };
    let bytes = text::counted(module.content.len(), "byte");
    format!("{bytes}, {hash}")
}

fn module_object(module: &CachedModule) -> Value {
    json!({"bytes": module.content.len(), "hash": module.hash})
}

fn row_object(diagnosis: &Diagnosis) -> Value {
    let module = match &diagnosis.row {
        RowState::Module(module) => Some(module),
        _ => None,
    };
    json!({
        "state": row_state(&diagnosis.row).0,
        "bytes": module.map(|module| module.content.len()),
        "hash": module.map(|module| &module.hash),
        "changed": diagnosis.changed.map(text::time),
    })
}

/// For scripts, and for people.
fn row_state(row: &RowState) -> (&'static str, &'static str) {
    match row {
        RowState::Module(_) => ("module", "a module"),
        RowState::Absent => ("absent", "no row"),
        RowState::Deleted => ("deleted", "a row that is marked as deleted"),
        RowState::NotAModule => ("not_a_module", "a row of another kind, or without content"),
        RowState::TooLarge => ("too_large", "a module that is larger than the limit"),
        _ => ("unknown", "a row"),
    }
}
