//! What is counted, and the mistakes that the simulation must find.

/// Counters with their names.
macro_rules! tally {
    ($($name:ident),+ $(,)?) => {
        /// What a seed led to.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $(pub $name: u64,)+
        }

        impl Tally {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

tally!(
    completed, failed, cancelled, aborted, unclean, attempts, lost, effects, fenced, crashes, zombies, stops, unsure, late_calls, outdated, stale,
    inputs, refused, deferred, callbacks, decisions, moves,
);

/// A mistake that a worker or the store could make; each must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The write is not fenced.
    WritesWithoutFence,
    /// A call is made before its intent is durable.
    CallsBeforeCommit,
    /// A saga is taken over as if nothing had been in flight.
    TakesOverWithoutLoss,
    /// A write that was sent again and matched no row is not looked up.
    TrustsTheSecondSending,
    /// The answer to a write of an earlier ownership counts for the present one.
    HearsOldAnswers,
    /// A call of an attempt gets a key of its own.
    ChangesTheKey,
    /// An input is taken out of the store when it is read, not when its effect is written.
    TakesInputsBeforeCommit,
}

impl Mistake {
    pub const ALL: [Self; 7] = [
        Self::WritesWithoutFence,
        Self::CallsBeforeCommit,
        Self::TakesOverWithoutLoss,
        Self::TrustsTheSecondSending,
        Self::HearsOldAnswers,
        Self::ChangesTheKey,
        Self::TakesInputsBeforeCommit,
    ];
}
