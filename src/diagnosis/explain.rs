//! Why a module or a name is absent, as far as Redis alone can tell.

use super::Diagnosis;
use super::cause::Cause;
use super::entry::{ask, cause};
use crate::client::Client;
use crate::client::transport::Transport;
use crate::error::Error;
use crate::paths::name::Name;
use crate::resolution::Resolution;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
use crate::resolution::resolve::resolve_many;

pub(crate) async fn explain<T: Transport>(
    client: &Client<T>,
    path: &str,
) -> Result<Diagnosis, Error> {
    let diagnosis = explain_any(client, "", &[path]).await?;
    let (name, path) = (None, Some(path.to_owned()));
    Ok(Diagnosis {
        name,
        path,
        ..diagnosis
    })
}

/// Explains the paths that a name may have, and picks the cause that helps most.
async fn explain_any<T: Transport>(
    client: &Client<T>,
    name: &str,
    paths: &[&str],
) -> Result<Diagnosis, Error> {
    let (status, mut entries) = ask(client, paths).await?;
    let causes: Vec<Cause> = entries
        .iter()
        .map(|entry| cause(entry, &status, None, None))
        .collect();
    let (cause, at) = most_telling(&causes);
    let entry = at.map(|at| entries.swap_remove(at));
    Ok(Diagnosis {
        cached: entry.and_then(|entry| entry.module?.ok()),
        status: Some(status),
        ..Diagnosis::of_name(cause, name, at.map(|at| paths[at])).from(client.config())
    })
}

/// The cause that helps most, and the index of the path that it is about. `None` if it is about the
/// whole cache: then it is the same for each path.
fn most_telling(causes: &[Cause]) -> (Cause, Option<usize>) {
    // `Cached` can only mean that a writer brought it between the two round trips.
    for telling in [Cause::Cached, Cause::Corrupt, Cause::ValueGone] {
        if let Some(at) = causes.iter().position(|cause| *cause == telling) {
            return (telling, Some(at));
        }
    }
    // A name without paths is so long that only a directory can have it.
    (causes.first().copied().unwrap_or(Cause::NotAPath), None)
}

/// Resolves the name and all of its parents in one round trip, then asks why the first missing part
/// is missing in another.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) async fn explain_name<T: Transport>(
    client: &Client<T>,
    name: &str,
) -> Result<Diagnosis, Error> {
    let config = client.config();
    if Name::parse(name).is_none() {
        return Ok(Diagnosis::of_name(Cause::NotAPath, name, None).from(config));
    }
    let chain = chain(name);
    match resolve_many(client, &chain).await {
        Ok(answers) => match judge(name, chain.into_iter().zip(answers)) {
            Ok(diagnosis) => Ok(diagnosis.from(config)),
            Err(missing) => {
                let parsed = Name::parse(missing);
                let paths: Vec<&str> = parsed.iter().flat_map(Name::candidates).collect();
                explain_any(client, missing, &paths).await
            }
        },
        // The entry may be that of a parent. It is not asked for again: what it says meanwhile may be
        // right, and would be no answer for the name.
        Err(Error::Corrupt { path, .. }) => {
            Ok(Diagnosis::of_name(Cause::Corrupt, name, Some(&path)).from(config))
        }
        Err(error) => Err(error),
    }
}

/// The parts of a name as Python asks for them: `a`, `a.b`, `a.b.c`.
pub(crate) fn chain(name: &str) -> Vec<&str> {
    let ends = name.match_indices('.').map(|(end, _)| end);
    ends.chain([name.len()]).map(|end| &name[..end]).collect()
}

/// What follows from what each part of the [`chain`] stands for; an error is the first part that is
/// not found.
pub(crate) fn judge<'a>(
    name: &str,
    answers: impl IntoIterator<Item = (&'a str, Resolution)>,
) -> Result<Diagnosis, &'a str> {
    let mut diagnosis = Diagnosis::of_name(Cause::NotAPath, name, None);
    for (part, answer) in answers {
        match answer {
            Resolution::NotFound => return Err(part),
            Resolution::Module(module) if part != name => {
                return Ok(Diagnosis::of_name(Cause::Hidden, name, Some(&module.path)));
            }
            Resolution::Module(module) | Resolution::Package(module) => {
                diagnosis = Diagnosis::of_name(Cause::Cached, name, Some(&module.path));
                diagnosis.cached = Some((*module).clone());
            }
            Resolution::Namespace { path } => {
                diagnosis = Diagnosis::of_name(Cause::Namespace, name, Some(&path));
            }
        }
    }
    Ok(diagnosis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::CachedModule;
    use std::sync::Arc;

    #[test]
    fn the_first_cause_that_helps_is_told() {
        use Cause::{CacheCold, Cached, Corrupt, IndexGone, NotCached, ValueGone};
        for (causes, telling) in [
            ([NotCached, NotCached], (NotCached, None)),
            ([CacheCold, CacheCold], (CacheCold, None)),
            ([CacheCold, ValueGone], (ValueGone, Some(1))),
            ([ValueGone, NotCached], (ValueGone, Some(0))),
            ([ValueGone, Cached], (Cached, Some(1))),
            ([IndexGone, IndexGone], (IndexGone, None)),
            ([IndexGone, ValueGone], (ValueGone, Some(1))),
            ([NotCached, Corrupt], (Corrupt, Some(1))),
        ] {
            assert_eq!(most_telling(&causes), telling);
        }
        assert_eq!(most_telling(&[]), (Cause::NotAPath, None));
    }

    #[test]
    fn a_name_is_judged_with_its_parents() {
        let module = |path: &str| Arc::new(CachedModule::new(path, "").unwrap());
        let judge = |answers: [Resolution; 2]| {
            let judged = judge("a.b", chain("a.b").into_iter().zip(answers));
            judged.map(|it| (it.cause, it.path.unwrap_or_default()))
        };
        let package = || Resolution::Package(module("a/__init__.py"));
        let is = |cause, path: &str| Ok((cause, path.to_owned()));
        assert_eq!(judge([package(), Resolution::NotFound]), Err("a.b"));
        assert_eq!(
            judge([Resolution::NotFound, Resolution::NotFound]),
            Err("a")
        );
        let found = Resolution::Module(module("a/b.py"));
        assert_eq!(
            judge([package(), found.clone()]),
            is(Cause::Cached, "a/b.py")
        );
        let parent = Resolution::Module(module("a.py"));
        assert_eq!(judge([parent, found]), is(Cause::Hidden, "a.py"));
        let path = "a/b".to_owned();
        let namespace = Resolution::Namespace { path };
        assert_eq!(judge([package(), namespace]), is(Cause::Namespace, "a/b"));
    }
}
