//! One page of a listing.

/// One page of a listing: `next` leads to the next page of the round, `delta` ends it and starts the next one.
///
/// Both links are opaque: kept and replayed unchanged. An empty page with a `next` is normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What the page holds.
    pub items: Vec<T>,
    /// The next page of this round.
    pub next: Option<String>,
    /// Where the next round starts; only on the last page of a delta.
    pub delta: Option<String>,
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(map).collect(), next: self.next, delta: self.delta }
    }
}
