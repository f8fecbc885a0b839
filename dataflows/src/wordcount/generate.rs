//! Makes up lines of text: the same ones for the same seed on every machine, without end.
//!
//! Every octave of ranks `[2^k, 2^(k+1))` of the vocabulary is about as likely as any other, which is Zipf's law in steps.

use lambdaflow::testing::Random;

/// Octaves of the vocabulary: 16,383 words.
const OCTAVES: u64 = 14;
/// Words in a line.
const WORDS: std::ops::Range<u64> = 4..13;
const SYLLABLES: [&str; 32] = [
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ro", "su", "ta", "ve", "wi", "xo", "yu", "za", "ble",
    "chi", "dro", "flu", "gra", "kle", "pli", "sto", "tru", "é", "n't",
];

/// An endless, seeded stream of lines.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    fn rank(&mut self) -> u64 {
        let first = 1 << self.random.below(OCTAVES);
        first + self.random.below(first)
    }
}

impl Iterator for Generator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let words = WORDS.start + self.random.below(WORDS.end - WORDS.start);
        let mut line = String::new();
        for at in 0..words {
            if at > 0 {
                line.push(' ');
            }
            let start = line.len();
            // A different word for each rank: its digits to the base of the syllables.
            let mut rank = self.rank();
            while rank > 0 {
                line.push_str(SYLLABLES[(rank % SYLLABLES.len() as u64) as usize]);
                rank /= SYLLABLES.len() as u64;
            }
            if at == 0 {
                let first = line[start..].chars().next().map_or(0, char::len_utf8);
                line[start..start + first].make_ascii_uppercase();
            }
        }
        line.push('.');
        Some(line)
    }
}
