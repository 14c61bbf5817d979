//! How much memory processes took at most.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looking for children reads every process there is: seldom, so that it does not disturb what is measured.
const LOOKS_PER_SEARCH: u32 = 10;

/// The highest resident size a process ever had; none when it is gone.
pub fn peak_memory(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Starts the high-water mark afresh.
pub fn reset_peak(pid: i32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset the peak");
}

/// Watches a process and what it starts.
pub struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub fn start(root: i32) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut peaks: BTreeMap<i32, u64> = BTreeMap::from([(root, 0)]);
            let mut n_looks = 0_u32;
            while !told.load(Ordering::Relaxed) {
                if n_looks.is_multiple_of(LOOKS_PER_SEARCH) {
                    add_children(&mut peaks);
                }
                for (pid, peak) in &mut peaks {
                    *peak = peak_memory(*pid).unwrap_or_default().max(*peak);
                }
                n_looks += 1;
                std::thread::sleep(LOOK_EVERY);
            }
            peaks.values().sum()
        });
        Self { ended, thread }
    }

    /// The sum of the peaks of all of them.
    pub fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic")
    }
}

fn add_children(peaks: &mut BTreeMap<i32, u64>) {
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if !peaks.contains_key(&pid) && parent(pid).is_some_and(|parent| peaks.contains_key(&parent)) {
            peaks.insert(pid, 0);
        }
    }
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
