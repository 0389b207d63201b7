//! Random numbers that follow from a seed and a count, so that an execution can be replayed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A generator whose whole state is a seed and how often it was drawn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn draw(&mut self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.seed.to_le_bytes());
        digest.update(self.drawn.to_le_bytes());
        self.drawn = self.drawn.wrapping_add(1);
        digest.finalize().into()
    }

    /// A number from 0 (included) to 1 (excluded).
    pub(crate) fn unit(&mut self) -> f64 {
        unit(&self.draw())
    }

    /// A version 4 UUID.
    pub(crate) fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.draw()[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// A whole number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "bounds are lengths of arrays in memory, far below 2^53"
        )]
        let index = (self.unit() * bound as f64) as usize;
        index.min(bound.saturating_sub(1))
    }
}

/// The number from 0 (included) to 1 (excluded) that belongs to `seed`, always the same.
pub(crate) fn seeded(seed: f64) -> f64 {
    let mut digest = Sha256::new();
    digest.update(b"$random");
    digest.update(seed.to_bits().to_le_bytes());
    unit(&digest.finalize().into())
}

/// The top 53 bits as a fraction: every value a double can hold evenly spaced in [0, 1).
fn unit(bytes: &[u8; 32]) -> f64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let top = (u64::from_le_bytes(word) >> 11) as f64;
    top / (1u64 << 53) as f64
}

/// Whether `text` is a UUID, for tests of what the generator makes.
#[cfg(test)]
pub(crate) fn is_uuid_v4(text: &str) -> bool {
    uuid::Uuid::parse_str(text).is_ok_and(|uuid| uuid.get_version_num() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_also_after_it_was_stored() {
        let mut one = Random::new(7);
        let first = (one.unit(), one.uuid());
        let stored = serde_json::to_string(&one).expect("plain numbers");
        let mut two: Random = serde_json::from_str(&stored).expect("what was just written");
        assert_eq!(one.unit(), two.unit());
        let mut again = Random::new(7);
        assert_eq!((again.unit(), again.uuid()), first);
        assert_ne!(Random::new(8).unit(), first.0);
    }

    #[test]
    fn numbers_are_in_range_and_uuids_are_version_4() {
        let mut random = Random::new(1);
        for _ in 0..200 {
            assert!((0.0..1.0).contains(&random.unit()));
            assert!(random.below(3) < 3);
        }
        assert!(is_uuid_v4(&random.uuid()));
        assert!((0.0..1.0).contains(&seeded(42.0)));
        assert_eq!(seeded(42.0), seeded(42.0));
        assert_ne!(seeded(42.0), seeded(43.0));
    }
}
