//! The wire format, beside plain `serde_json` over a plain struct. Needs no server.

use std::hint::black_box;

use bifrost_module_cache::{CachedModule, keys};
use criterion::{Criterion, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

mod ratio;

use ratio::{FAST, Ratio, compare, timed};

#[derive(Serialize, Deserialize)]
struct Entry {
    content: String,
    path: String,
    hash: String,
}

const PATH: &str = "shared/integrations/halopsa.py";

fn codec(criterion: &mut Criterion<Ratio>) {
    let line = "    result = await client.fetch(\"https://example.com/api\", timeout=30)  # n\n";
    for kilobytes in [1, 10, 100] {
        let content = line.repeat(kilobytes * 1024 / line.len() + 1);
        let module = CachedModule::new(PATH, content).unwrap();
        let entry = Entry {
            content: module.content.clone(),
            path: module.path.clone(),
            hash: module.hash.clone(),
        };
        let json = module.to_json();
        compare(
            criterion,
            &format!("decode, {kilobytes} KB"),
            FAST,
            (
                "serde_json::from_slice",
                Box::new(|n| {
                    timed(n, || {
                        serde_json::from_slice::<Entry>(black_box(&json)).unwrap()
                    })
                }),
            ),
            vec![(
                "CachedModule::from_json",
                Box::new(|n| {
                    timed(n, || {
                        CachedModule::from_json(PATH, black_box(&json)).unwrap()
                    })
                }),
            )],
        );
        compare(
            criterion,
            &format!("encode, {kilobytes} KB"),
            FAST,
            (
                "serde_json::to_vec",
                Box::new(|n| timed(n, || serde_json::to_vec(black_box(&entry)).unwrap())),
            ),
            vec![(
                "CachedModule::to_json",
                Box::new(|n| timed(n, || black_box(&module).to_json())),
            )],
        );
    }
    compare(
        criterion,
        "key",
        FAST,
        (
            "format!",
            Box::new(|n| {
                timed(n, || {
                    format!("{}{}", keys::MODULE_KEY_PREFIX, black_box(PATH))
                })
            }),
        ),
        vec![(
            "keys::module_key",
            Box::new(|n| timed(n, || keys::module_key(black_box(PATH)).unwrap())),
        )],
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio);
    targets = codec
}
criterion_main!(benches);
