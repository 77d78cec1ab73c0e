//! Randomness that can be replayed: every draw is one number of a list, so a case shrinks by shrinking its list.

/// Draws from a list of numbers, or from a seed, of which it then keeps what it drew.
#[derive(Clone, Debug)]
pub struct Chance {
    pub drawn: Vec<u32>,
    at: usize,
    state: Option<u64>,
}

impl Chance {
    pub fn of_seed(seed: u64) -> Self {
        Self { drawn: Vec::new(), at: 0, state: Some(seed) }
    }

    /// Draws these, and then noughts.
    pub fn of_list(drawn: &[u32]) -> Self {
        Self { drawn: drawn.to_vec(), at: 0, state: None }
    }

    fn next(&mut self) -> u32 {
        if let Some(state) = &mut self.state {
            // SplitMix64.
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let number = u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits");
            self.drawn.push(number);
            return number;
        }
        self.at += 1;
        self.drawn.get(self.at - 1).copied().unwrap_or(0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound.max(1)
    }

    pub fn place(&mut self, bound: usize) -> usize {
        self.below(u32::try_from(bound).expect("few")) as usize
    }

    /// True in `percent` of a hundred cases; a list of noughts says no.
    pub fn happens(&mut self, percent: u32) -> bool {
        self.below(100) >= 100 - percent
    }

    /// In 0..1.
    pub fn share(&mut self) -> f64 {
        f64::from(self.next()) / 4_294_967_296.0
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.place(all.len())]
    }
}

/// The smallest list that still `fails`, as far as a simple search finds it.
pub fn shrink(list: &[u32], fails: &mut dyn FnMut(&[u32]) -> bool) -> Vec<u32> {
    let mut best = list.to_vec();
    let mut tries = 3_000_u32;
    let mut size = best.len().next_power_of_two();
    while size > 0 && tries > 0 {
        let mut at = 0;
        while at < best.len() && tries > 0 {
            tries -= 1;
            let mut shorter = best.clone();
            shorter.drain(at..(at + size).min(best.len()));
            if fails(&shorter) {
                best = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    for at in 0..best.len() {
        for lower in [0, 1, best[at] % 100] {
            if lower < best[at] && tries > 0 {
                tries -= 1;
                let mut less = best.clone();
                less[at] = lower;
                if fails(&less) {
                    best = less;
                    break;
                }
            }
        }
    }
    best
}
