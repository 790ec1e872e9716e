//! `explain`: why a path or a name is missing or old.

use bifrost_module_cache::diagnosis::{Cause, Diagnosis, RowState};

use crate::failure::{Exit, Failure};
use crate::format;
use crate::output::{BAD, GOOD, Output, harmless};
use crate::servers::Servers;

pub fn explain(servers: &Servers<'_>, output: &mut Output, subject: &str) -> Result<Exit, Failure> {
    // A path has a slash or ends in `.py`. A module's name has no slash, and could end so only if
    // the module were called `py`.
    let is_file = matches!(subject.rsplit_once('.'), Some((_, "py")));
    let is_path = is_file || subject.contains('/');
    let Some(database) = servers.database()? else {
        return with_redis(servers, output, subject, is_path);
    };
    let subject_of_call = subject.to_owned();
    let diagnosis = database.ask(move |reader, client| {
        if is_path {
            reader.diagnose(client, &subject_of_call)
        } else {
            reader.diagnose_name(client, &subject_of_call)
        }
    });
    match diagnosis {
        Ok(diagnosis) => print(servers, output, &diagnosis),
        // The database can't be reached. Redis alone still tells something, and the failure comes
        // after.
        Err(failure) if failure.is_unavailable() => {
            with_redis(servers, output, subject, is_path).and(Err(failure))
        }
        Err(failure) => Err(failure),
    }
}

/// Without a database, or while it can't be reached.
fn with_redis(
    servers: &Servers<'_>,
    output: &mut Output,
    subject: &str,
    is_path: bool,
) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    let diagnosis = if is_path {
        reader.explain(subject)
    } else {
        reader.explain_name(subject)
    };
    let diagnosis = diagnosis.map_err(|error| servers.failure(error))?;
    print(servers, output, &diagnosis)
}

fn print(
    servers: &Servers<'_>,
    output: &mut Output,
    diagnosis: &Diagnosis,
) -> Result<Exit, Failure> {
    let cause = diagnosis.cause;
    // An import fails because of a corrupt entry, so it has the code of one, as with `get`.
    let exit = match cause {
        Cause::Corrupt => Exit::Corrupt,
        cause => Exit::fine_if(cause.is_fine()),
    };
    if output.json {
        output.json(diagnosis)?;
        return Ok(exit);
    }
    if !output.reports() {
        return Ok(exit);
    }
    let style = if cause.is_fine() { GOOD } else { BAD };
    let title = output.paint(style, diagnosis.summary());
    let subjects = [diagnosis.name.as_deref(), diagnosis.path.as_deref()];
    let subjects: Vec<&str> = subjects.into_iter().flatten().collect();
    let subjects = harmless(&subjects.join(", "));
    output.line(format_args!("{subjects}: {title}"))?;
    let redis = match &diagnosis.path {
        Some(_) => format!("{}: {}", servers.redis(), entry(diagnosis)),
        None => servers.redis(),
    };
    let mut rows = vec![("redis", redis)];
    if let Some(status) = &diagnosis.status {
        rows.push(("cache", format::state_and_age(status)));
    }
    if let Some(database) = &diagnosis.servers.database {
        let row = match &diagnosis.row {
            Some(RowState::Module(module)) => format::described(module),
            Some(other) => other.to_string(),
            None => "not asked".to_owned(),
        };
        rows.push(("database", format!("{database}: {row}")));
    }
    let changed = diagnosis.changed.map(format::time_and_age);
    rows.extend(changed.map(|changed| ("changed", changed)));
    rows.push(("why", diagnosis.reason().into_owned()));
    if !diagnosis.remedy().is_empty() {
        rows.push(("remedy", diagnosis.remedy().to_owned()));
    }
    output.table(&rows)?;
    // Redis alone can't tell whether there should be such a module.
    if cause == Cause::NotCached && diagnosis.row.is_none() {
        output.hint(
            "with a database (--database-url-file or DATABASE_URL) it tells whether there should be one",
        )?;
    }
    Ok(exit)
}

fn entry(diagnosis: &Diagnosis) -> String {
    match (&diagnosis.cached, diagnosis.cause) {
        (Some(module), _) => format::described(module),
        (None, Cause::Corrupt) => "an entry that can't be read".to_owned(),
        (None, Cause::Namespace) => "modules below it".to_owned(),
        (None, Cause::Hidden) => "a module, which hides the name".to_owned(),
        (None, _) => "no module".to_owned(),
    }
}
