//! Several workspaces on one Redis, and Redis where sentinels or a cluster say.

use crate::schema;
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

#[test]
fn it_finds_redis_where_sentinels_and_clusters_say() {
    for (world, named) in [
        (World::of_sentinels(), "named by the sentinels"),
        (World::of_cluster(), "named by the cluster"),
    ] {
        world.table().put("a.py", "row");
        let url = world.redis.place_url();
        let here = |arguments: &[&str]| {
            let mut command = tool(&world, arguments);
            command.env("REDIS_URL", &url);
            command.env("BIFROST_NAMESPACE", TENANT);
            command
        };
        run(here(&["warm", "--wait", "30s"]), 0);
        let server = format!("127.0.0.1:{}", world.redis.port());
        run(here(&["status"]), 0).mentions(&[&server, "a primary", named]);
        let status = run(here(&["status", "--json"]), 0).object();
        schema::check(&status, &schema::status());
        assert_eq!(status["servers"]["server"], server);
        assert_eq!(run(here(&["get", "a.py"]), 0).out, "row");
        run(here(&["verify"]), 0);
        run(here(&["clear", "--yes"]), 0);
    }
    let mut command = tool(&World::new(), &["status"]);
    command.env("REDIS_URL", "redis+cluster://127.0.0.1:1");
    run(command, 4).says(&["hash tag"]);
}
