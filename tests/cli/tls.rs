//! Both servers over TLS.

use std::fs;

use serde_json::json;

use crate::support::Table;
use crate::support::certificates::{ADDRESS, Authority, TlsRedis, tls_postgres};
use crate::tool::{bare, run};

#[test]
fn both_servers_are_reached_over_tls_by_those_who_trust_them() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    let (postgres, _files) = tls_postgres(&authority.issue(ADDRESS));
    postgres.create_workspace("workspace_files");
    Table(postgres.client()).put("a.py", "1");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let client = authority.client();
    let (certificate, key) = (
        file("client", &client.certificate),
        file("key", &client.key),
    );
    let (right, wrong) = (
        file("right", &authority.pem()),
        file("wrong", &stranger.pem()),
    );
    let warm = |ca: &str, parameters: &str, more: &[&str]| {
        let arguments = ["warm", "--json", "--quiet", "--wait", "20s", "--tls-ca", ca];
        let mut command = bare(&[&arguments, more].concat());
        command.env("REDIS_URL", redis.url(ADDRESS));
        command.env("DATABASE_URL", postgres.url() + parameters);
        command
    };
    let shown = ["--tls-cert", &certificate, "--tls-key", &key];
    for parameters in [
        "?sslmode=require",
        "?sslmode=verify-full",
        "?ssl=require",
        "?sslmode=disable",
    ] {
        let object = run(warm(&right, parameters, &shown), 0).object();
        assert_eq!(object["modules"], json!(1), "{parameters}");
    }
    // Trust does not come with time: nothing is waited for.
    let ran = run(warm(&wrong, "?sslmode=require", &shown), 4);
    assert!(ran.took.as_secs() < 10, "{ran:?}");
    ran.says(&["certificate"]);
    run(warm(&right, "?sslmode=require", &[]), 4).says(&["a certificate was not accepted"]);
    run(warm(&right, "", &["--tls-cert", &certificate]), 2);
}
