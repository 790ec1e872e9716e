//! Criterion's measurement is the ratio of two times here: a candidate's to that of the floor beside
//! it, in the same sample.
//!
//! One after the other, as criterion runs functions, floor and candidate would meet different
//! moments of a machine that others use too; a comparison of the two would measure those. So both
//! take turns within each sample, and what criterion then analyses, and compares with the last run,
//! is their ratio.

#![allow(
    dead_code,
    reason = "every bench compiles this module and uses a part of it"
)]

use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, SamplingMode, Throughput};

/// A candidate's time in units of the floor's.
pub struct Ratio;

impl Measurement for Ratio {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        unreachable!("a ratio takes two: use `compare`")
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Times
    }
}

struct Times;

impl ValueFormatter for Times {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "x"
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        "x"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "x"
    }
}

/// Something that takes part: how long it takes for so many turns.
pub type Runner<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// How many pieces a sample is cut into, at the most.
const PIECES: u64 = 20;

/// How long one comparison takes, and of how many samples it is made.
#[derive(Clone, Copy)]
pub struct Effort {
    pub samples: usize,
    pub seconds: u64,
}

/// For what takes less than a millisecond.
pub const FAST: Effort = Effort {
    samples: 50,
    seconds: 3,
};

/// For what takes long.
pub const SLOW: Effort = Effort {
    samples: 10,
    seconds: 10,
};

/// Compares each of the rivals with the floor, whose name becomes a part of the group's.
pub fn compare(
    criterion: &mut Criterion<Ratio>,
    group: &str,
    effort: Effort,
    floor: (&str, Runner<'_>),
    rivals: Vec<(&str, Runner<'_>)>,
) {
    let (name, mut floor) = floor;
    let mut group = criterion.benchmark_group(format!("{group} ÷ {name}"));
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(effort.samples)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(effort.seconds));
    for (name, mut rival) in rivals {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|turns| in_turns(turns, &mut floor, &mut rival));
        });
    }
    group.finish();
}

/// The ratio of the times, once for each of so many turns: the median of those of all pieces, so that
/// a piece in which another process had the processor does not count.
#[allow(clippy::cast_precision_loss, reason = "turns are few")]
fn in_turns(turns: u64, floor: &mut Runner<'_>, rival: &mut Runner<'_>) -> f64 {
    let pieces = turns.min(PIECES);
    let ratio = |piece: u64| {
        let turns = turns * (piece + 1) / pieces - turns * piece / pieces;
        // Either is the first as often as the other.
        let (of_floor, of_rival);
        if piece.is_multiple_of(2) {
            of_floor = floor(turns);
            of_rival = rival(turns);
        } else {
            of_rival = rival(turns);
            of_floor = floor(turns);
        }
        of_rival.as_secs_f64() / of_floor.as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..pieces).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    turns as f64 * ratios[ratios.len() / 2]
}

/// How long so many calls take, one after the other.
pub fn timed<T>(turns: u64, mut call: impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..turns {
        std::hint::black_box(call());
    }
    start.elapsed()
}

/// The same where something must be done before each call, which does not count.
pub fn timed_after<S, T>(
    turns: u64,
    mut before: impl FnMut() -> S,
    mut call: impl FnMut(S) -> T,
) -> Duration {
    (0..turns)
        .map(|_| {
            let ready = before();
            let start = Instant::now();
            std::hint::black_box(call(ready));
            start.elapsed()
        })
        .sum()
}
