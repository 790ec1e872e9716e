//! Several workspaces on one Redis.

use crate::support::TENANT;
use crate::tool::{World, run, tool, without_database};

#[test]
fn each_namespace_is_a_workspace_of_its_own() {
    let world = World::new();
    world.table().put("a.py", "row");
    let tenant = |arguments: &[&str]| {
        let mut command = tool(&world, arguments);
        command.env("BIFROST_NAMESPACE", TENANT);
        command
    };
    run(tenant(&["warm"]), 0);
    run(tenant(&["status"]), 0);
    run(tenant(&["verify"]), 0);
    assert_eq!(run(tenant(&["get", "a.py"]), 0).out, "row");
    assert!(world.foreign().entry("a.py").value.is_none());
    // The argument goes before the variable.
    run(tenant(&["--namespace", "other:", "status"]), 1);
    let ran = run(
        tool(&world, &["--namespace", TENANT, "status", "--json"]),
        0,
    );
    assert_eq!(ran.object()["servers"]["namespace"], TENANT);
    for arguments in [&["status"][..], &["get", "a.py"]] {
        run(without_database(&world, arguments), 1);
    }
    run(without_database(&world, &["clear", "--yes"]), 0);
    run(tenant(&["status"]), 0);
    run(tenant(&["clear", "--yes"]), 0);
    run(tenant(&["status"]), 1);
    run(tool(&world, &["--namespace", "a*", "status"]), 4).says(&["namespace"]);
}
