//! What processes have used, as Linux tells it under `/proc`: processor time and memory.
//!
//! Processor time is user and system time together, of a process with all its threads and all its descendants (nginx
//! works in children). The kernel tells it in hundredths of a second, so what is measured lasts seconds.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

/// Linux tells times to programs in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// One process's line in `/proc/PID/stat`, as far as it is of use here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    /// Of children that have ended and were waited for.
    ended_ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name is in parentheses and may itself hold blanks and parentheses.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Field 3 of proc(5) is the first one here.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = |number: usize| field(number)?.parse::<u64>().ok();
        Some(Self {
            parent: field(4)?.parse().ok()?,
            user_ticks: ticks(14)?,
            system_ticks: ticks(15)?,
            ended_ticks: ticks(16)? + ticks(17)?,
        })
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Seconds of processor time that a process and its descendants have used.
pub(super) fn processor_seconds(root: u32) -> Result<f64> {
    Stat::read(root).with_context(|| format!("process {root} is gone"))?;
    let ticks: u64 =
        family(root).into_iter().filter_map(Stat::read).map(|stat| stat.user_ticks + stat.system_ticks).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Seconds of processor time of this process's children that have ended.
pub(super) fn seconds_of_ended_children() -> Result<f64> {
    let stat = Stat::read(std::process::id()).context("/proc is not readable")?;
    Ok(stat.ended_ticks as f64 / TICKS_PER_SECOND)
}

/// Seconds for which the machine's processors were not idle, all of them together.
pub(super) fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_busy(&text).context("/proc/stat does not begin with `cpu`")
}

fn parse_busy(text: &str) -> Option<f64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum();
    Some(busy as f64 / TICKS_PER_SECOND)
}

/// Makes the highest memory use so far the present one.
pub(super) fn reset_peak(root: u32) -> Result<()> {
    for pid in family(root) {
        fs::write(format!("/proc/{pid}/clear_refs"), "5")
            .with_context(|| format!("cannot reset the peak memory of process {pid}"))?;
    }
    Ok(())
}

/// Bytes of memory, the processes of a family added up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: u64,
    /// The most that was ever resident since the peak was reset.
    pub(super) peak: u64,
    /// Resident now, and the process's own: neither files nor shared.
    pub(super) anonymous: u64,
}

pub(super) fn memory(root: u32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in family(root) {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
        let bytes = |name| kibibytes(&status, name).map(|kibibytes| kibibytes * 1024);
        let one = || Some((bytes("VmRSS")?, bytes("VmHWM")?, bytes("RssAnon")?));
        let (resident, peak, anonymous) =
            one().with_context(|| format!("process {pid} tells no memory: it has ended"))?;
        sum.resident += resident;
        sum.peak += peak;
        sum.anonymous += anonymous;
    }
    Ok(sum)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A process and all its descendants.
pub(super) fn family(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect();
    descendants(root, &parents)
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let further: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if further.is_empty() {
            return found.into_iter().collect();
        }
        found.extend(further);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a (strange) name) S 42 4711 4711 0 -1 4194560 500 0 3 0 731 214 15 6 20 0 3 0 9906 1 2 3";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let expected = Stat { parent: 42, user_ticks: 731, system_ticks: 214, ended_ticks: 21 };
        assert_eq!(Stat::parse(STAT), Some(expected));
        assert_eq!(Stat::parse("4711 (cut) S 42"), None);
    }

    #[test]
    fn idle_time_and_guests_are_not_busy() {
        let text = "cpu  1000 100 500 9000 70 10 20 30 400 0\ncpu0 1 2 3\n";
        assert_eq!(parse_busy(text), Some(16.6));
        assert_eq!(parse_busy("intr 5"), None);
    }

    #[test]
    fn memory_is_told_in_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nRssAnon:\t    4096 kB\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(20_480));
        assert_eq!(kibibytes(status, "RssAnon"), Some(4096));
        assert_eq!(kibibytes(status, "VmSwap"), None);
    }

    #[test]
    fn a_family_is_found_whatever_the_order() {
        let parents = [(30, 20), (20, 10), (10, 1), (11, 1), (40, 30)];
        assert_eq!(descendants(10, &parents), [10, 20, 30, 40]);
        assert_eq!(descendants(11, &parents), [11]);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        assert!(processor_seconds(own).is_ok());
        assert!(memory(own).expect("readable").resident > 0);
        assert!(busy_seconds().expect("readable") > 0.0);
    }
}
