//! `publish`: brings a directory of `.py` files into the cache. It is the warm-up of those without
//! a database.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use bifrost_module_cache::CachedModule;
use bifrost_module_cache::sync::{Change, PublishReport};
use walkdir::{DirEntry, WalkDir};

use crate::args::Removals;
use crate::failure::{Exit, Failure};
use crate::format;
use crate::output::{BAD, GOOD, Output};
use crate::servers::Servers;
use crate::stderr::Stderr;

pub fn publish(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
    dir: &Path,
    exact: bool,
    removals: Removals,
) -> Result<Exit, Failure> {
    if removals.any() && !exact {
        return Err(Failure::usage(
            "--allow-empty, --max-prune and --dry-run go with --exact",
        ));
    }
    // All files are read before the first module is sent: nothing is half published because of one
    // bad file.
    let modules = read(dir, |path, bytes| servers.fits(path, bytes));
    let modules = modules.map_err(|failures| all(failures, stderr, dir))?;
    if modules.is_empty() && !removals.limits.allow_empty {
        let advice = if exact {
            ": pass --allow-empty if no module is meant"
        } else {
            ""
        };
        return Err(Failure::refused(format!(
            "{} has no .py file{advice}",
            dir.display()
        )));
    }
    let writer = servers.writer()?;
    let report = if exact {
        let options = removals
            .options()
            .with_progress(|progress| stderr.progress(progress));
        writer.publish_exact_with(&modules, options)
    } else {
        let changes: Vec<Change> = modules.into_iter().map(Change::Set).collect();
        writer.publish(&changes)
    };
    let report = report.map_err(|error| servers.failure(error))?;
    stderr.clear();
    print(output, &report, exact)?;
    // A flush or `clear` came between. What was written is there, but the cache is not whole.
    if exact && !report.complete && !removals.dry_run {
        return Err(Failure::no(
            "the cache was cleared meanwhile, so it is not complete: run it again",
        ));
    }
    Ok(Exit::Fine)
}

/// Names each file that can't be a module.
fn all(mut failures: Vec<Failure>, stderr: &Stderr, dir: &Path) -> Failure {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    for failure in &failures {
        stderr.error(&failure.message);
    }
    let dir = dir.display();
    let message = format!(
        "{} files of {dir} can't be modules: nothing was sent",
        failures.len()
    );
    Failure::refused(message)
}

fn print(output: &mut Output, report: &PublishReport, exact: bool) -> Result<(), Failure> {
    if output.json {
        return output.json(report);
    }
    if !output.reports() {
        return Ok(());
    }
    if let Some(dry_run) = &report.dry_run {
        return format::print_dry_run(output, dry_run);
    }
    let written = format!("{} ({})", report.written, format::bytes(report.bytes));
    let mut rows = format::servers(&report.servers);
    if exact {
        let (style, state) = if report.complete {
            (GOOD, "warm: it holds exactly this directory")
        } else {
            (BAD, "not complete")
        };
        rows.push(("cache", output.paint(style, state)));
    }
    rows.push(("written", written));
    if exact {
        rows.push(("unchanged", report.unchanged.to_string()));
        rows.push(("removed", report.removed.to_string()));
    }
    output.table(&rows)
}

/// All modules below a directory. A file that can't be a module fails the whole, because half a
/// workspace is worse than the old one; each such file is named. `fits` is asked for a file's size
/// before the file is read into memory.
fn read(
    root: &Path,
    fits: impl Fn(&str, usize) -> Result<(), Failure>,
) -> Result<Vec<CachedModule>, Vec<Failure>> {
    let real_root = root
        .canonicalize()
        .map_err(|error| vec![unread(root, error)])?;
    if !real_root.is_dir() {
        return Err(vec![unread(root, "it is not a directory")]);
    }
    // Links are followed, because a mounted volume consists of them; `inside` checks where they
    // lead.
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
    let wanted = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry.path());
    let (mut modules, mut failures) = (Vec::new(), Vec::new());
    for entry in walk.into_iter().filter_entry(wanted) {
        let read = match entry {
            Ok(entry) => read_entry(&entry, root, &real_root, &fits),
            // A hidden entry that can't be looked at, such as an editor's lock, which is a link
            // that leads nowhere: hidden entries are left out anyway.
            Err(error) if error.depth() > 0 && error.path().is_some_and(is_hidden) => Ok(None),
            Err(error) => Err(unread(error.path().unwrap_or(root), why(&error))),
        };
        match read {
            Ok(module) => modules.extend(module),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(modules)
    } else {
        Err(failures)
    }
}

/// The module of an entry, or `None` if the entry is no `.py` file.
fn read_entry(
    entry: &DirEntry,
    root: &Path,
    real_root: &Path,
    fits: impl Fn(&str, usize) -> Result<(), Failure>,
) -> Result<Option<CachedModule>, Failure> {
    let path = entry.path();
    let failed = |error: String| unread(path, error);
    let is_module =
        entry.file_type().is_file() && path.extension().is_some_and(|extension| extension == "py");
    // Directories go on to `inside`: a link to one outside would bring its files in.
    if !is_module && !entry.file_type().is_dir() {
        return Ok(None);
    }
    let file = inside(entry, real_root).map_err(failed)?;
    if !is_module {
        return Ok(None);
    }
    let name = name(root, path).map_err(failed)?;
    let bytes = entry.metadata().map_err(|error| failed(why(&error)))?.len();
    fits(&name, usize::try_from(bytes).unwrap_or(usize::MAX))?;
    module(name, &file).map(Some).map_err(failed)
}

fn unread(path: &Path, error: impl Display) -> Failure {
    Failure::refused(format!("can't read {}: {error}", path.display()))
}

/// Hidden files are left out: version control, editors, and the data directories of mounted
/// volumes.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn why(error: &walkdir::Error) -> String {
    // Without an I/O error it can only be a circle: the walk has no other error of its own.
    error.io_error().map_or_else(
        || "it is a symbolic link to a directory that it lies in".to_owned(),
        ToString::to_string,
    )
}

/// Where an entry really is. Mounted volumes are made of symbolic links; one that leads out of the
/// directory could bring a secret of this machine into every worker.
fn inside(entry: &DirEntry, root: &Path) -> Result<PathBuf, String> {
    let path = entry.path();
    if !entry.path_is_symlink() {
        return Ok(path.to_owned());
    }
    let target = path.canonicalize().map_err(|error| error.to_string())?;
    if !target.starts_with(root) {
        return Err("it is a symbolic link that leads out of the directory".to_owned());
    }
    Ok(target)
}

/// The module's path: relative to the directory, with slashes on every system.
fn name(root: &Path, path: &Path) -> Result<String, String> {
    let relative = path.strip_prefix(root).map_err(|error| error.to_string())?;
    let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
    Ok(parts.ok_or("its name is not UTF-8")?.join("/"))
}

fn module(name: String, file: &Path) -> Result<CachedModule, String> {
    let content = fs::read(file).map_err(|error| error.to_string())?;
    let content = String::from_utf8(content).map_err(|_| "its content is not UTF-8")?;
    CachedModule::new(name, content).map_err(|error| error.to_string())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn read(root: &Path) -> Result<Vec<CachedModule>, Vec<Failure>> {
        super::read(root, |_, _| Ok(()))
    }

    fn paths(modules: &[CachedModule]) -> Vec<&str> {
        modules.iter().map(|module| module.path.as_str()).collect()
    }

    #[test]
    fn python_files_are_modules_and_all_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for sub in ["shared/deep", ".git", "..data"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        for name in [
            "a.py",
            "shared/__init__.py",
            "shared/deep/é.py",
            "notes.md",
            ".git/x.py",
            ".b.py",
            "..data/m.py",
        ] {
            fs::write(root.join(name), "\u{feff}x = 1\r\n").unwrap();
        }
        fs::create_dir(root.join("odd.py")).unwrap();
        symlink("..data/m.py", root.join("m.py")).unwrap();
        // What is no module may lead anywhere, and what is hidden may lead nowhere.
        symlink("/dev/null", root.join("null.py")).unwrap();
        symlink("/dev/null", root.join("null")).unwrap();
        symlink("user@nowhere", root.join(".#a.py")).unwrap();
        symlink(root, root.join(".venv")).unwrap();
        let modules = read(root).unwrap();
        assert_eq!(
            paths(&modules),
            ["a.py", "m.py", "shared/__init__.py", "shared/deep/é.py"]
        );
        assert!(
            modules
                .iter()
                .all(|module| module.content == "\u{feff}x = 1\r\n")
        );
        // However the directory is named.
        assert_eq!(read(&root.join("shared/..")).unwrap(), modules);
    }

    type Make<'a> = &'a dyn Fn(&Path) -> std::io::Result<()>;

    #[test]
    fn one_bad_file_fails_all_and_is_named() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let make: [(&str, Make<'_>); 8] = [
            ("leads out", &|file| {
                symlink(outside.path().join("secret"), file)
            }),
            ("leads out", &|file| {
                symlink(outside.path(), file.with_file_name("lib"))
            }),
            ("leads out", &|file| {
                fs::create_dir(file.with_file_name("lib"))?;
                symlink(outside.path(), file.with_file_name("lib/sub"))
            }),
            ("lies in", &|file| symlink(".", file.with_file_name("lib"))),
            ("No such file", &|file| {
                symlink("nowhere", file.with_file_name("lib"))
            }),
            ("UTF-8", &|file| fs::write(file, b"\xff")),
            ("No such file", &|file| symlink("nowhere", file)),
            ("control", &|file| {
                fs::write(file.with_file_name("b\n.py"), "")
            }),
        ];
        for (word, make) in make {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a.py"), "").unwrap();
            make(&dir.path().join("b.py")).unwrap();
            let failures = read(dir.path()).unwrap_err();
            let [failure] = &failures[..] else {
                panic!("{failures:?}");
            };
            assert!(failure.message.contains(word), "{}", failure.message);
            assert!(failure.message.contains('b'), "{}", failure.message);
        }
        assert!(read(Path::new("/nowhere")).is_err());
        assert!(read(Path::new("/dev/null")).is_err());
    }
}
