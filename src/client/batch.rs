//! Work cut into bounded pieces, so that neither a request, an answer nor a transaction holds up
//! Redis for long or takes much memory, however large the workspace is.

use crate::module::CachedModule;

/// How many modules one batch holds at most.
pub(crate) const BATCH_MODULES: usize = 200;

/// How many bytes of content one batch holds at most, unless a single module is larger.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Cuts into batches bounded by count and bytes.
pub(crate) fn batches<T>(
    items: impl IntoIterator<Item = T>,
    most: usize,
    most_bytes: usize,
    size: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if batch.len() == most || (!batch.is_empty() && bytes + more > most_bytes) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// What a source answered.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) modules: Vec<CachedModule>,
    /// How many more there are that are larger than the limit.
    pub(crate) too_large: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_keep_order_and_bounds(sizes in prop::collection::vec(0..2 * BATCH_BYTES, 0..600)) {
            let cut = batches(sizes.clone(), BATCH_MODULES, BATCH_BYTES, |size| *size);
            prop_assert_eq!(cut.concat(), sizes);
            for batch in &cut {
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_MODULES);
                prop_assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES);
            }
        }
    }

    #[test]
    fn small_modules_fill_batches() {
        assert_eq!(
            batches(vec![1; 401], BATCH_MODULES, BATCH_BYTES, |size| *size)
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>(),
            [200, 200, 1]
        );
    }
}
