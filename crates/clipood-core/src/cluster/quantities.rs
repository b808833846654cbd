//! Times and amounts of memory as cluster manifests write them.

use serde::{Deserialize, Serialize};

/// A time limit in whole seconds, written as Slurm does: `MINUTES`, `MINUTES:SECONDS`, `HOURS:MINUTES:SECONDS`,
/// `DAYS-HOURS`, `DAYS-HOURS:MINUTES` or `DAYS-HOURS:MINUTES:SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeLimit(pub u64);

/// An amount of memory in bytes, written as a whole number with `K`, `M`, `G` or `T` for powers of 1024; `64Gi` and `64GB`
/// mean `64G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Memory(pub u64);

/// The letters of the units, each 1024 times the one before.
const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

impl TryFrom<String> for TimeLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        seconds(text.trim()).map(Self).ok_or_else(|| {
            format!("found `{text}`, allowed: a time as Slurm writes it, such as \"04:00:00\" or \"2-00\"")
        })
    }
}

impl From<TimeLimit> for String {
    fn from(time: TimeLimit) -> String {
        time.slurm()
    }
}

fn seconds(text: &str) -> Option<u64> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let digits = |part: &str| {
            let all = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| part.parse().ok())?
        };
        text.split(':').map(digits).collect()
    };
    let (days, hours, minutes, seconds) = match text.split_once('-') {
        Some((days, rest)) => match (numbers(days)?.as_slice(), numbers(rest)?.as_slice()) {
            ([days], [hours]) => (*days, *hours, 0, 0),
            ([days], [hours, minutes]) => (*days, *hours, *minutes, 0),
            ([days], [hours, minutes, seconds]) => (*days, *hours, *minutes, *seconds),
            _ => return None,
        },
        None => match numbers(text)?.as_slice() {
            [minutes] => (0, 0, *minutes, 0),
            [minutes, seconds] => (0, 0, *minutes, *seconds),
            [hours, minutes, seconds] => (0, *hours, *minutes, *seconds),
            _ => return None,
        },
    };
    let all = days
        .checked_mul(24)?
        .checked_add(hours)?
        .checked_mul(60)?
        .checked_add(minutes)?
        .checked_mul(60)?
        .checked_add(seconds)?;
    (all > 0).then_some(all)
}

impl TimeLimit {
    /// `DAYS-HOURS:MINUTES:SECONDS`, without the days if there are none.
    pub fn slurm(self) -> String {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let (days, hours) = (hours / 24, hours % 24);
        match days {
            0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
            _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
        }
    }
}

impl TryFrom<String> for Memory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        bytes(text.trim()).map(Self).ok_or_else(|| {
            format!("found `{text}`, allowed: a whole number with K, M, G or T, such as \"64G\"")
        })
    }
}

impl From<Memory> for String {
    fn from(memory: Memory) -> String {
        memory.slurm()
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let mut letters = unit.chars();
    let letter = letters.next()?;
    if !["", "I", "B", "IB"].contains(&letters.as_str()) {
        return None;
    }
    let power = UNITS.iter().position(|unit| *unit == letter)?;
    let number: u64 = number.parse().ok()?;
    let bytes = number.checked_mul(1024u64.checked_pow(power as u32 + 1)?)?;
    (bytes > 0).then_some(bytes)
}

impl Memory {
    /// As Slurm takes it: `64G` is 64 times 1024 to the third.
    pub fn slurm(self) -> String {
        self.in_units("")
    }

    /// As Kubernetes takes it: `64Gi`.
    pub fn kubernetes(self) -> String {
        self.in_units("i")
    }

    /// In the largest unit that leaves a whole number.
    fn in_units(self, suffix: &str) -> String {
        let mut number = self.0 / 1024;
        let mut unit = 0;
        while unit + 1 < UNITS.len() && number.is_multiple_of(1024) {
            number /= 1024;
            unit += 1;
        }
        format!("{number}{}{suffix}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_writes_them_and_written_back() {
        for (text, seconds, back) in [
            ("90", 5400, "01:30:00"),
            ("90:30", 5430, "01:30:30"),
            ("04:00:00", 14_400, "04:00:00"),
            ("2-00", 172_800, "2-00:00:00"),
            ("1-12:30", 131_400, "1-12:30:00"),
            ("1-00:00:01", 86_401, "1-00:00:01"),
        ] {
            let time = TimeLimit::try_from(text.to_string()).unwrap();
            assert_eq!((time.0, time.slurm().as_str()), (seconds, back), "{text}");
        }
        for text in [
            "",
            "0",
            "4h",
            "1:2:3:4",
            "-1",
            "+5",
            "1-",
            "1-2-3",
            "999999999999999999-0",
        ] {
            let error = TimeLimit::try_from(text.to_string()).unwrap_err();
            assert!(error.contains("04:00:00"), "{text}: {error}");
        }
    }

    #[test]
    fn memory_is_read_with_the_suffixes_of_both_engines() {
        for (text, slurm, kubernetes) in [
            ("64G", "64G", "64Gi"),
            ("64Gi", "64G", "64Gi"),
            ("64 GB", "64G", "64Gi"),
            ("1536M", "1536M", "1536Mi"),
            ("2048g", "2T", "2Ti"),
            ("7K", "7K", "7Ki"),
        ] {
            let memory = Memory::try_from(text.to_string()).unwrap();
            let written = (memory.slurm(), memory.kubernetes());
            assert_eq!(
                (written.0.as_str(), written.1.as_str()),
                (slurm, kubernetes),
                "{text}"
            );
        }
        for text in [
            "",
            "64",
            "G",
            "0G",
            "1.5G",
            "64X",
            "64GG",
            "99999999999999999T",
        ] {
            let error = Memory::try_from(text.to_string()).unwrap_err();
            assert!(error.contains("64G"), "{text}: {error}");
        }
    }
}
