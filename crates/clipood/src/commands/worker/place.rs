//! Which of how many workers a process is: from its options, or from the environment of Slurm and Kubernetes.

use clipood_pipeline::PipelineError;

/// A worker among others.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub index: usize,
    /// The number of workers.
    pub count: usize,
    /// Where these are from, if not from the options alone.
    source: Option<&'static str>,
}

impl Place {
    /// A line for the log, if the environment has decided.
    pub fn line(&self) -> Option<String> {
        let source = self.source?;
        Some(format!(
            "worker {} of {} ({source})",
            self.index, self.count
        ))
    }
}

/// The place of this process. Options take precedence over variables, which `variable` reads:
///
/// - `SLURM_ARRAY_TASK_ID` with `_MIN`, `_MAX`, `_STEP` and `_COUNT`: the task of an array. An array need not begin at 0,
///   and may have gaps, which leave numbers of workers unused.
/// - `SLURM_PROCID` of a step with several tasks (`srun -n 8 clipood worker ...`), within the array task if there is one.
/// - `JOB_COMPLETION_INDEX` of a Kubernetes Indexed Job, whose size is in no variable.
///
/// # Errors
/// [`PipelineError::Usage`] for a variable that is not a number, a number of workers that is missing, and an index that is
/// not below it.
pub fn find(
    index: Option<usize>,
    count: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Place, PipelineError> {
    let found = match (index, count) {
        (Some(_), Some(_)) => None,
        _ => scheduled(&variable)?,
    };
    let place = match (index, count, found) {
        (
            None,
            None,
            Some(Scheduled {
                count: None,
                source,
                ..
            }),
        ) => {
            return Err(PipelineError::Usage(format!(
                "{source} gives the number of this worker, but not the number of all: give --count (`completions` of the Job)"
            )));
        }
        (index, count, Some(found)) => Place {
            index: index.unwrap_or(found.index),
            count: count.or(found.count).unwrap_or(1),
            source: Some(found.source),
        },
        (index, count, None) => Place {
            index: index.unwrap_or(0),
            count: count.unwrap_or(1),
            source: None,
        },
    };
    if place.index >= place.count {
        let (index, count) = (place.index, place.count);
        let source = place
            .source
            .map_or_else(String::new, |source| format!(" ({source})"));
        return Err(PipelineError::Usage(format!(
            "--index {index} is not below --count {count}{source}"
        )));
    }
    Ok(place)
}

/// What a scheduler says.
struct Scheduled {
    index: usize,
    count: Option<usize>,
    source: &'static str,
}

fn scheduled(
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<Scheduled>, PipelineError> {
    let number = |name: &str| -> Result<Option<usize>, PipelineError> {
        let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) else {
            return Ok(None);
        };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(PipelineError::Usage(format!(
                "the variable {name} is `{text}`, expected a whole number; give --index and --count instead"
            ))),
        }
    };
    let array = match number("SLURM_ARRAY_TASK_ID")? {
        None => None,
        Some(id) => {
            let least = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            let most = number("SLURM_ARRAY_TASK_MAX")?;
            let tasks = number("SLURM_ARRAY_TASK_COUNT")?;
            let span = most.map(|most| most.saturating_sub(least) / step + 1);
            Some((id.saturating_sub(least) / step, span.or(tasks).unwrap_or(1)))
        }
    };
    let (rank, ranks) = match number("SLURM_STEP_NUM_TASKS")? {
        Some(ranks) if ranks > 1 => (number("SLURM_PROCID")?.unwrap_or(0), ranks),
        _ => (0, 1),
    };
    if array.is_some() || ranks > 1 {
        let (task, tasks) = array.unwrap_or((0, 1));
        return Ok(Some(Scheduled {
            index: task * ranks + rank,
            count: Some(tasks * ranks),
            source: match array {
                Some(_) => "SLURM_ARRAY_TASK_ID",
                None => "SLURM_PROCID",
            },
        }));
    }
    let index = number("JOB_COMPLETION_INDEX")?;
    Ok(index.map(|index| Scheduled {
        index,
        count: None,
        source: "JOB_COMPLETION_INDEX",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        index: Option<usize>,
        count: Option<usize>,
        variables: &[(&str, &str)],
    ) -> Result<(usize, usize), String> {
        let read = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name)?;
            Some(found.1.to_string())
        };
        let found = find(index, count, read).map_err(|error| error.to_string())?;
        Ok((found.index, found.count))
    }

    const ARRAY: [(&str, &str); 5] = [
        ("SLURM_ARRAY_TASK_ID", "3"),
        ("SLURM_ARRAY_TASK_MIN", "1"),
        ("SLURM_ARRAY_TASK_MAX", "4"),
        ("SLURM_ARRAY_TASK_STEP", "1"),
        ("SLURM_ARRAY_TASK_COUNT", "4"),
    ];

    #[test]
    fn options_come_first_and_without_anything_a_worker_is_alone() {
        assert_eq!(place(None, None, &[]), Ok((0, 1)));
        assert_eq!(place(Some(2), Some(3), &ARRAY), Ok((2, 3)));
        assert_eq!(place(None, Some(9), &ARRAY), Ok((2, 9)));
        assert_eq!(place(Some(1), None, &ARRAY), Ok((1, 4)));
        assert_eq!(
            place(None, None, &[("SLURM_ARRAY_TASK_ID", "")]),
            Ok((0, 1))
        );
        let error = place(Some(2), None, &[]).unwrap_err();
        assert_eq!(error, "--index 2 is not below --count 1");
    }

    #[test]
    fn arrays_of_any_shape_give_numbers_from_zero() {
        assert_eq!(place(None, None, &ARRAY), Ok((2, 4)));
        // `--array=10,30,50`: the gaps only distribute the work less evenly.
        let sparse = [
            ("SLURM_ARRAY_TASK_ID", "50"),
            ("SLURM_ARRAY_TASK_MIN", "10"),
            ("SLURM_ARRAY_TASK_MAX", "50"),
            ("SLURM_ARRAY_TASK_COUNT", "3"),
        ];
        assert_eq!(place(None, None, &sparse), Ok((40, 41)));
        // `--array=0-6:2`.
        let stepped = [
            ("SLURM_ARRAY_TASK_ID", "6"),
            ("SLURM_ARRAY_TASK_MIN", "0"),
            ("SLURM_ARRAY_TASK_MAX", "6"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ];
        assert_eq!(place(None, None, &stepped), Ok((3, 4)));
        let short = [
            ("SLURM_ARRAY_TASK_ID", "1"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
        ];
        assert_eq!(place(None, None, &short), Ok((1, 2)));
    }

    #[test]
    fn tasks_of_a_step_are_workers_of_their_own() {
        let step = [("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "8")];
        assert_eq!(place(None, None, &step), Ok((5, 8)));
        let both = [&ARRAY[..], &step[..]].concat();
        assert_eq!(place(None, None, &both), Ok((21, 32)));
        let alone = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(place(None, None, &alone), Ok((0, 1)));
    }

    #[test]
    fn an_indexed_job_needs_the_number_of_all() {
        let pod = [("JOB_COMPLETION_INDEX", "3")];
        assert_eq!(place(None, Some(4), &pod), Ok((3, 4)));
        assert!(place(None, None, &pod).unwrap_err().contains("--count"));
        let error = place(None, Some(2), &pod).unwrap_err();
        assert!(error.contains("JOB_COMPLETION_INDEX"), "{error}");
        let error = place(None, Some(2), &[("JOB_COMPLETION_INDEX", "x")]).unwrap_err();
        assert!(error.contains("JOB_COMPLETION_INDEX is `x`"), "{error}");
    }
}
