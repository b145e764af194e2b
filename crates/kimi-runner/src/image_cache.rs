//! Features of images and clips that were looked at lately, by content: requests and answers with the same one share them, and
//! a prompt that is computed in chunks has them at hand.

use std::collections::HashMap;

use candle_core::Tensor;
use kimi_k2::ModelError;
use kimi_tokens::{ContentHash, Medium};

/// Features, the one used longest ago the first to go. Nothing depends on what is kept: what is gone is computed again.
#[derive(Debug)]
pub(crate) struct ImageCache {
    entries: HashMap<ContentHash, Entry>,
    max_bytes: u64,
    bytes: u64,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// f32 `[tokens, hidden]`.
    features: Tensor,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> u64 {
        (self.features.elem_count() * size_of::<f32>()) as u64
    }
}

impl ImageCache {
    /// Keeps at most so many bytes, but always the features that were asked for last.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { entries: HashMap::new(), max_bytes, bytes: 0, clock: 0 }
    }

    /// The features of `medium`, made by `encode` if they are not there.
    pub(crate) fn features(
        &mut self,
        medium: &Medium,
        encode: impl FnOnce(&Medium) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(&medium.hash) {
            entry.used = self.clock;
            return Ok(entry.features.clone());
        }
        let features = encode(medium)?;
        let entry = Entry { features: features.clone(), used: self.clock };
        self.bytes += entry.bytes();
        self.entries.insert(medium.hash, entry);
        while self.bytes > self.max_bytes && self.entries.len() > 1 {
            self.drop_oldest();
        }
        Ok(features)
    }

    fn drop_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash);
        if let Some(entry) = oldest.and_then(|hash| self.entries.remove(&hash)) {
            self.bytes -= entry.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use kimi_tokens::PatchGrid;

    use super::*;

    #[test]
    fn the_features_used_longest_ago_go_first() {
        let mut cache = ImageCache::new(3 * 8 * 4);
        let mut look_at = |image: u8, tokens: usize| {
            let grid = PatchGrid { frames: 1, height: 2, width: 2 * tokens };
            let medium = Medium { grid, pixels: vec![], hash: ContentHash([image; 32]) };
            let mut encoded = false;
            let encode = |medium: &Medium| {
                encoded = true;
                Ok(Tensor::full(f32::from(image), (medium.grid.tokens(), 8), &Device::Cpu)?)
            };
            let features = cache.features(&medium, encode).unwrap();
            assert_eq!(features.to_vec2::<f32>().unwrap(), vec![[f32::from(image); 8]; tokens]);
            encoded
        };
        assert!(look_at(1, 1) && look_at(2, 1) && look_at(3, 1));
        assert!(!look_at(1, 1) && !look_at(3, 1), "three fit");
        assert!(look_at(4, 1), "a fourth takes the place of 2");
        assert!(!look_at(1, 1) && look_at(2, 1));
        assert!(look_at(5, 9) && !look_at(5, 9), "what is too large stays until something else is asked for");
        assert!(look_at(1, 1) && look_at(5, 9));
    }
}
