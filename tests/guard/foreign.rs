//! What foreign writers do wrong, and that it is right soon afterwards.

use std::time::{Duration, Instant};

use crate::support::{
    Foreign, Guard, Guarding, LIMIT, World, numbered, on_both_facades, wait_until,
};
use bifrost_module_cache::guard::{DatabaseFeed, GuardOptions, trigger_sql};

on_both_facades! {
    each_wrong_entry_is_right_soon
}

/// Waits until the module is there with this content, or nothing is.
#[track_caller]
fn wait_for(foreign: &mut Foreign, path: &str, content: Option<&str>) -> Duration {
    let start = Instant::now();
    wait_until(path, LIMIT, || {
        let entry = foreign.entry(path);
        let found = entry.value.as_deref().filter(|json| !json.is_empty());
        match content {
            Some(content) => {
                let module = found.and_then(|json| {
                    bifrost_module_cache::CachedModule::from_json(path, json.as_bytes()).ok()
                });
                entry.listed && entry.ttl == -1 && module.is_some_and(|it| it.content == content)
            }
            None => found.is_none() && !entry.listed,
        }
    });
    start.elapsed()
}

fn each_wrong_entry_is_right_soon<F: Guarding>() {
    let paths = numbered(300);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(
        &world,
        GuardOptions::default().with_poll(Duration::from_millis(100)),
    );
    guard.wait_until_it_rests();
    let (mut foreign, mut table) = (world.foreign(), world.table());
    foreign.assert_holds(&paths);
    println!("{:?}", guard.stats());
    foreign.set("m/001.py", "wrong");
    println!(
        "set {:?}",
        wait_for(&mut foreign, "m/001.py", Some("m/001.py"))
    );
    foreign.run("DEL bifrost:module:m/002.py");
    println!(
        "del {:?}",
        wait_for(&mut foreign, "m/002.py", Some("m/002.py"))
    );
    foreign.run("SREM bifrost:module:index m/003.py");
    println!(
        "srem {:?}",
        wait_for(&mut foreign, "m/003.py", Some("m/003.py"))
    );
    foreign.set("m/ghost.py", "ghost");
    println!("ghost {:?}", wait_for(&mut foreign, "m/ghost.py", None));
    table.put("m/004.py", "new");
    println!(
        "commit {:?}",
        wait_for(&mut foreign, "m/004.py", Some("new"))
    );
    table.run("DELETE FROM workspace_files WHERE path = 'm/005.py'");
    println!("delete {:?}", wait_for(&mut foreign, "m/005.py", None));
    table.run("UPDATE workspace_files SET path = 'm/moved.py' WHERE path = 'm/006.py'");
    println!(
        "moved {:?}",
        wait_for(&mut foreign, "m/moved.py", Some("m/006.py"))
    );
    println!("moved {:?}", wait_for(&mut foreign, "m/006.py", None));
    foreign.flush();
    println!(
        "flush {:?}",
        wait_for(&mut foreign, "m/299.py", Some("m/299.py"))
    );
    wait_until("marked", LIMIT, || world.status().is_warm());
    println!("{:?}\n{}", guard.stats(), world.status());
    drop(guard);
    assert_eq!(world.status().guard, None);

    table.run(&trigger_sql(&world.writer_config()).unwrap());
    let guard = Guard::start(&world, GuardOptions::default().with_listen(true));
    wait_until("listen", LIMIT, || {
        guard.stats().database_feed == DatabaseFeed::Listen
    });
    table.put("m/004.py", "newer");
    println!(
        "listen: commit {:?}",
        wait_for(&mut foreign, "m/004.py", Some("newer"))
    );
    table.run("DELETE FROM workspace_files WHERE path = 'm/015.py'");
    println!(
        "listen: delete {:?}",
        wait_for(&mut foreign, "m/015.py", None)
    );
}
