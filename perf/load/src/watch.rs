//! What processes spent, from /proc: every task of a process and of its descendants.

use std::collections::BTreeMap;
use std::fs;

use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

use crate::fault::{Doing, Fault};

/// Processes to be read at both ends of the window.
#[derive(Debug)]
pub(crate) struct Watch {
    named: Vec<(String, u32)>,
    begin: Vec<Reading>,
}

/// One process tree at one instant.
#[derive(Debug, Default)]
struct Reading {
    /// Nanoseconds on a CPU by task, from the scheduler; exact where the ticks below are samples.
    tasks: BTreeMap<u32, u64>,
    user_ticks: u64,
    system_ticks: u64,
    rss_kb: u64,
}

impl Watch {
    pub(crate) fn new(named: Vec<(String, u32)>) -> Self {
        Self { named, begin: Vec::new() }
    }

    /// The first reading.
    pub(crate) fn begin(&mut self) -> Result<(), Fault> {
        self.begin = self.read()?;
        Ok(())
    }

    /// The second reading, and what was spent between the two.
    pub(crate) fn end(&self) -> Result<Value, Fault> {
        let end = self.read()?;
        let spent = self.named.iter().zip(self.begin.iter().zip(&end));
        Ok(spent.map(|((name, _), (begin, end))| (name.clone(), end.since(begin))).collect())
    }

    fn read(&self) -> Result<Vec<Reading>, Fault> {
        self.named
            .iter()
            .map(|(name, pid)| {
                let mut reading = Reading::default();
                reading
                    .add(*pid, 0)
                    .doing(&format!("--watch {name}={pid}: is the process running?"))?;
                Ok(reading)
            })
            .collect()
    }
}

impl Reading {
    fn add(&mut self, pid: u32, depth: u32) -> std::io::Result<()> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user, system) = ticks(&stat).unwrap_or_default();
        self.user_ticks += user;
        self.system_ticks += system;
        self.rss_kb += resident(&fs::read_to_string(format!("/proc/{pid}/status"))?);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(tid) = task?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let base = format!("/proc/{pid}/task/{tid}");
            // A task may end while it is looked at: then there is nothing more to be read of it.
            let Ok(schedstat) = fs::read_to_string(format!("{base}/schedstat")) else { continue };
            let nanos = schedstat.split(' ').next().and_then(|text| text.parse().ok());
            self.tasks.insert(tid, nanos.unwrap_or(0));
            let children = fs::read_to_string(format!("{base}/children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
                if depth < DEPTH_MAX {
                    _ = self.add(child, depth + 1);
                }
            }
        }
        Ok(())
    }

    fn since(&self, begin: &Self) -> Value {
        let spent = self
            .tasks
            .iter()
            .map(|(task, nanos)| nanos.saturating_sub(begin.tasks.get(task).copied().unwrap_or(0)));
        let gone = begin.tasks.keys().filter(|task| !self.tasks.contains_key(task)).count();
        let milliseconds = |ticks: u64| ticks * 1000 / clock_ticks_per_second();
        json!({
            "cpu_ns": spent.sum::<u64>(),
            "user_ms": milliseconds(self.user_ticks.saturating_sub(begin.user_ticks)),
            "system_ms": milliseconds(self.system_ticks.saturating_sub(begin.system_ticks)),
            "rss_kb_begin": begin.rss_kb,
            "rss_kb_end": self.rss_kb,
            // Their last nanoseconds are lost; a figure with many of them is not to be trusted.
            "tasks_gone": gone,
        })
    }
}

/// User and system ticks of a line of /proc/PID/stat; the name before them may hold anything, also spaces.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

const DEPTH_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 55 66 0 0 20 0 1 0 9 10 11";
        assert_eq!(ticks(stat), Some((55, 66)));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn resident_memory_is_read_in_kilobytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\n"), 1234);
        assert_eq!(resident("Name:\tx\n"), 0);
    }

    #[test]
    fn a_task_that_began_in_the_window_counts_whole() {
        let begin = Reading { tasks: [(1, 10), (2, 5)].into(), ..Reading::default() };
        let end = Reading { tasks: [(1, 30), (3, 7)].into(), ..Reading::default() };
        let spent = end.since(&begin);
        assert_eq!((&spent["cpu_ns"], &spent["tasks_gone"]), (&json!(27), &json!(1)));
    }

    #[test]
    fn this_process_is_seen_to_work() {
        let mut watch = Watch::new(vec![("self".to_owned(), std::process::id())]);
        watch.begin().unwrap();
        let start = crate::clock::now();
        while crate::clock::now() - start < 30 * crate::clock::MILLISECOND {}
        let spent = watch.end().unwrap();
        assert!(spent["self"]["cpu_ns"].as_u64().unwrap() > 1_000_000, "{spent}");
        assert!(spent["self"]["rss_kb_end"].as_u64().unwrap() > 100, "{spent}");
    }

    #[test]
    fn a_process_that_does_not_run_is_named() {
        let mut watch = Watch::new(vec![("peer".to_owned(), u32::MAX)]);
        assert!(watch.begin().unwrap_err().to_string().contains("--watch peer="));
    }
}
