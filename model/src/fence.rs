//! The numbers that decide who may still act. All of them only grow; none is a time.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Raised when a coordinator starts on a restored catalog.
    Generation
);
number!(
    /// A coordinator's leadership.
    Term
);
number!(
    /// The storage epoch that sessions are bound to.
    Epoch
);
number!(
    /// The version of a pool's layout.
    LayoutVersion
);
number!(
    /// The position of a snapshot among those of its (resource, workload), from 1.
    Sequence
);

/// Who may act for a job: ordered by generation, then attempt. A node refuses every fence below the highest it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Fence {
    /// The catalog's generation when the attempt started.
    pub generation: Generation,
    /// The attempt: unique per (resource, workload) within a generation, growing.
    pub attempt: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.attempt)
    }
}
