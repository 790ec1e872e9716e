//! The wire format, beside plain `serde_json` over a plain struct. Needs no server.

use std::hint::black_box;

use bifrost_module_cache::{CachedModule, keys};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Entry {
    content: String,
    path: String,
    hash: String,
}

const PATH: &str = "shared/integrations/halopsa.py";

fn codec(criterion: &mut Criterion) {
    let line = "    result = await client.fetch(\"https://example.com/api\", timeout=30)  # n\n";
    for kilobytes in [1, 10, 100] {
        let module =
            CachedModule::new(PATH, line.repeat(kilobytes * 1024 / line.len() + 1)).unwrap();
        let entry = Entry {
            content: module.content.clone(),
            path: module.path.clone(),
            hash: module.hash.clone(),
        };
        let json = module.to_json();
        let size = format!("{kilobytes} KB");

        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function(
            BenchmarkId::new("floor: serde_json::from_slice", &size),
            |bencher| {
                bencher.iter(|| serde_json::from_slice::<Entry>(black_box(&json)).unwrap());
            },
        );
        group.bench_function(
            BenchmarkId::new("CachedModule::from_json", &size),
            |bencher| {
                bencher.iter(|| CachedModule::from_json(PATH, black_box(&json)).unwrap());
            },
        );
        group.finish();

        let mut group = criterion.benchmark_group("encode");
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function(
            BenchmarkId::new("floor: serde_json::to_vec", &size),
            |bencher| {
                bencher.iter(|| serde_json::to_vec(black_box(&entry)).unwrap());
            },
        );
        group.bench_function(
            BenchmarkId::new("CachedModule::to_json", &size),
            |bencher| {
                bencher.iter(|| black_box(&module).to_json());
            },
        );
        group.finish();
    }

    let mut group = criterion.benchmark_group("key");
    group.bench_function("floor: format!", |bencher| {
        bencher.iter(|| format!("{}{}", keys::MODULE_KEY_PREFIX, black_box(PATH)));
    });
    group.bench_function("keys::module_key", |bencher| {
        bencher.iter(|| keys::module_key(black_box(PATH)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
