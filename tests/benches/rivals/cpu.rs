//! How much of the processors' time processes used: what other load on the machine changes least.

use std::fs;

/// Ticks of the clock that `/proc` counts in.
const TICKS_PER_SECOND: f64 = 100.0;
/// Where the numbers stand behind the name of the program, which is in brackets.
const OWN: [usize; 2] = [11, 12];
const CHILDREN: [usize; 2] = [13, 14];

/// Of a process so far.
pub fn own_seconds(pid: i32) -> f64 {
    seconds(pid, OWN)
}

/// Of what a process started and waited for.
pub fn children_seconds(pid: i32) -> f64 {
    seconds(pid, CHILDREN)
}

fn seconds(pid: i32, fields: [usize; 2]) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let numbers: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks =
        fields.map(|field| numbers.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0));
    ticks.iter().sum::<u64>() as f64 / TICKS_PER_SECOND
}
