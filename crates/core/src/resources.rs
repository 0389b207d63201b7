//! What a run may ask for its engine task: CPU, memory, disk and time, by
//! `workflow_engine_parameters` of our own.
//!
//! A run keeps what it asked for; what its task gets is worked out from that and from the service's
//! bounds, when the run is submitted and again before each attempt.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{destination::DEST, error::ApiError, wes::DefaultWorkflowEngineParameter};

/// What the names of our own `workflow_engine_parameters` begin with. None of them reaches an
/// engine's command line.
pub const PREFIX: &str = "stepwes.";

/// Virtual CPUs, such as `2` or `0.5`.
pub const CPU: &str = "stepwes.cpu";
/// Memory, such as `16 GiB`.
pub const MEMORY: &str = "stepwes.memory";
/// Disk, such as `100 GiB`.
pub const DISK: &str = "stepwes.disk";
/// The time limit of an attempt, in seconds or such as `2h`.
pub const TIME: &str = "stepwes.time";

/// The CPU units of one virtual CPU, as ECS counts them.
const UNITS: u32 = 1024;
/// MiB in a GiB.
const MIB: u32 = 1024;

/// The sizes of Fargate tasks: CPU units, and the MiB from, to and in steps of.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html>
const FARGATE: [(u32, u32, u32, u32); 8] = [
    (256, 512, 512, 512),
    (256, 1024, 2048, 1024),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];
/// The GiB of disk that Fargate can be asked for at least.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EphemeralStorage.html>
const LEAST_DISK: u32 = 21;
/// The CPU units that a task on an instance can have at least.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>
const LEAST_CPU: u32 = 128;
/// The MiB below which no engine starts, on an instance as on Fargate.
const LEAST_MEMORY: u32 = 512;

/// The longest time limit that a service may set for an attempt, in seconds: ten days.
pub const LONGEST_TIME: u32 = 864_000;

/// What a run asked for; what it did not is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU units, 1024 of which are a virtual CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// MiB of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// GiB of disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// The time limit of an attempt in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,
}

impl Resources {
    /// Reads those of our own among `workflow_engine_parameters`.
    ///
    /// # Errors
    /// 400 naming the parameter that we do not have, or that cannot be read.
    pub fn of_parameters(parameters: &Map<String, Value>) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        let ours = parameters.iter().filter(|(name, _)| name.starts_with(PREFIX) && *name != DEST);
        for (name, value) in ours {
            let text = match value {
                Value::String(text) => text.trim().to_owned(),
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            let (read, wanted) = match name.as_str() {
                CPU => (&mut asked.cpu, "a number of virtual CPUs, such as 2 or 0.5"),
                MEMORY => (&mut asked.memory, "a size with its unit, such as \"16 GiB\""),
                DISK => (&mut asked.disk, "a size with its unit, such as \"100 GiB\""),
                TIME => (&mut asked.time, "a number of seconds, or such as \"2h\" or \"1d 12h\""),
                _ => {
                    return Err(ApiError::BadRequest(format!(
                        "workflow_engine_parameters: {name:?} is not a parameter of this service; it has: {CPU}, {MEMORY}, {DISK}, {TIME}, {DEST}"
                    )));
                }
            };
            *read = match name.as_str() {
                CPU => decimal(&text).and_then(|cpus| whole(cpus * f64::from(UNITS))),
                MEMORY => bytes(&text).and_then(|bytes| whole(bytes / f64::from(MIB * MIB))),
                DISK => bytes(&text).and_then(|b| whole(b / f64::from(MIB * MIB) / f64::from(MIB))),
                _ => seconds(&text),
            };
            if read.is_none() {
                return Err(ApiError::BadRequest(format!(
                    "workflow_engine_parameters: {name} is {value}, and must be {wanted}"
                )));
            }
        }
        Ok(asked)
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Digits, with a point among them at most.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|_| plain)
}

/// A number above 0, rounded up.
fn whole(number: f64) -> Option<u32> {
    let up = number.ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within the range, and whole"
    )]
    (up >= 1.0 && up <= f64::from(u32::MAX)).then_some(up as u32)
}

/// A size with its unit in bytes; `GB` is decimal and `GiB` binary, as in WDL.
fn bytes(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(decimal(number.trim())? * unit)
}

/// Seconds, or numbers with the units `d`, `h`, `m` and `s`.
fn seconds(text: &str) -> Option<u32> {
    let mut rest = text;
    let mut sum: u32 = 0;
    if text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().ok().filter(|seconds| *seconds > 0);
    }
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..at].parse().ok()?;
        let after = rest[at..].trim_start();
        let factor = match after.chars().next()? {
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(factor)?)?;
        rest = after[1..].trim_start();
    }
    (sum > 0).then_some(sum)
}

/// Which sizes tasks can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    /// Those of Fargate, each task with a disk of its own.
    Fargate,
    /// Any: tasks share an instance, and its disk.
    #[serde(rename = "ec2")]
    Any,
}

/// What a run gets of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// When it does not ask; `None` for no limit.
    pub default: Option<u32>,
    /// The most that it may ask for. Less than the default counts as the default.
    pub max: u32,
}

impl Bound {
    fn max(self) -> u32 {
        self.max.max(self.default.unwrap_or_default())
    }
}

/// What a service gives a run: `STEPWES_RESOURCES`, JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceBounds {
    /// Which sizes there are: `fargate`, or `ec2` for any.
    #[serde(rename = "compute")]
    pub sizes: Sizes,
    /// CPU units.
    pub cpu: Bound,
    /// MiB.
    pub memory: Bound,
    /// GiB.
    pub disk: Bound,
    /// The time limit of an attempt in seconds, which a run may shorten.
    pub time: u32,
}

impl Default for ResourceBounds {
    /// The template's.
    fn default() -> Self {
        Self {
            sizes: Sizes::Fargate,
            cpu: Bound { default: Some(1024), max: 4096 },
            memory: Bound { default: Some(4096), max: 30_720 },
            disk: Bound { default: Some(50), max: 200 },
            time: 86_400,
        }
    }
}

/// What RunTask is told of a task's size; what is absent is as in the task definition.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html>
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskSize {
    /// CPU units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// The disk; Fargate's tasks alone have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<EphemeralStorage>,
}

/// A Fargate task's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralStorage {
    /// GiB, from 21 to 200.
    #[serde(rename = "SizeInGiB")]
    pub size_in_gib: u32,
}

impl ResourceBounds {
    /// Whether the service can be run with these.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if (1..=LONGEST_TIME).contains(&self.time) {
            return Ok(());
        }
        Err(format!("time: {} is not within 1 and {LONGEST_TIME}", self.time))
    }

    /// The size of the task of a run that asked for this: at least as much of everything.
    ///
    /// What was not asked for is the default, or what is nearest to it among what goes with the
    /// rest. A run that asked for nothing gets what the task definition says.
    ///
    /// # Errors
    /// A sentence that says what can be asked for.
    pub fn size(&self, asked: &Resources) -> Result<TaskSize, String> {
        self.within(CPU, asked.cpu, self.cpu.max(), cpus)?;
        self.within(MEMORY, asked.memory, self.memory.max(), mebibytes)?;
        self.within(DISK, asked.disk, self.most_disk(), |gib| format!("{gib} GiB"))?;
        self.within(TIME, asked.time, self.time, |time| format!("{time} s"))?;
        let mut size = TaskSize::default();
        if asked.cpu.is_some() || asked.memory.is_some() {
            let (cpu, memory) = match self.sizes {
                Sizes::Fargate => {
                    let (cpu, memory) = self.fargate(asked)?;
                    (Some(cpu), Some(memory))
                }
                Sizes::Any => (
                    asked.cpu.map(|cpu| cpu.max(LEAST_CPU)).or(self.cpu.default),
                    asked.memory.map(|memory| memory.max(LEAST_MEMORY)).or(self.memory.default),
                ),
            };
            size.cpu = cpu.map(|cpu| cpu.to_string());
            size.memory = memory.map(|memory| memory.to_string());
        }
        if self.sizes == Sizes::Fargate {
            size.ephemeral_storage =
                asked.disk.map(|disk| EphemeralStorage { size_in_gib: disk.max(LEAST_DISK) });
        }
        Ok(size)
    }

    /// The time limit of an attempt of a run that asked for this, in seconds.
    #[must_use]
    pub fn time_of(&self, asked: &Resources) -> u32 {
        asked.time.map_or(self.time, |time| time.min(self.time))
    }

    /// GiB. Nobody gets more of an instance's disk than it has.
    fn most_disk(&self) -> u32 {
        match self.sizes {
            Sizes::Fargate => self.disk.max(),
            Sizes::Any => self.disk.default.unwrap_or(self.disk.max),
        }
    }

    /// Refuses to give more than the service gives.
    fn within(
        &self,
        name: &str,
        asked: Option<u32>,
        max: u32,
        text: impl Fn(u32) -> String,
    ) -> Result<(), String> {
        match asked {
            Some(asked) if asked > max => Err(format!(
                "{name} is {}, more than the {} that this service gives a run{}",
                text(asked),
                text(max),
                if matches!(name, CPU | MEMORY) { self.sizes_text() } else { String::new() }
            )),
            _ => Ok(()),
        }
    }

    /// The sizes of Fargate within the bounds: CPU units and MiB.
    fn fargate_sizes(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (max_cpu, max_memory) = (self.cpu.max(), self.memory.max());
        FARGATE
            .into_iter()
            .flat_map(|(cpu, from, to, step)| {
                (from..=to).step_by(step as usize).map(move |memory| (cpu, memory))
            })
            .filter(move |(cpu, memory)| *cpu <= max_cpu && *memory <= max_memory)
    }

    fn fargate(&self, asked: &Resources) -> Result<(u32, u32), String> {
        // Of what is asked for, as little as is enough; of the rest, what is nearest to the default.
        let cost = |has: u32, asked: Option<u32>, default: Option<u32>| match asked {
            Some(asked) => has.checked_sub(asked),
            None => Some(default.map_or(has, |default| has.abs_diff(default))),
        };
        self.fargate_sizes()
            .filter_map(|(cpu, memory)| {
                let of_cpu = cost(cpu, asked.cpu, self.cpu.default)?;
                let of_memory = cost(memory, asked.memory, self.memory.default)?;
                Some(((of_cpu, of_memory), (cpu, memory)))
            })
            .min()
            .map(|(_, size)| size)
            .ok_or_else(|| {
                let parts = [asked.cpu.map(cpus), asked.memory.map(mebibytes)];
                let parts: Vec<_> = parts.into_iter().flatten().collect();
                format!("no task of this service has {}{}", parts.join(" with "), self.sizes_text())
            })
    }

    /// The sizes of Fargate within the bounds, in words; nothing where any will do.
    fn sizes_text(&self) -> String {
        if self.sizes == Sizes::Any {
            return String::new();
        }
        let mut text = String::new();
        let mut sizes = self.fargate_sizes().collect::<Vec<_>>();
        sizes.dedup_by_key(|size| size.0);
        for (cpu, least) in sizes {
            let of_cpu: Vec<_> =
                self.fargate_sizes().filter(|size| size.0 == cpu).map(|size| size.1).collect();
            let most = of_cpu.last().copied().unwrap_or(least);
            let begin = if text.is_empty() { "; sizes are " } else { ", " };
            let _ = write!(text, "{begin}{} with {}", cpus(cpu), mebibytes(least));
            if most > least {
                let _ = write!(text, " to {}", mebibytes(most));
            }
        }
        text
    }

    /// Service-info's `default_workflow_engine_parameters` for what a run may ask for.
    #[must_use]
    pub fn default_parameters(&self) -> Vec<DefaultWorkflowEngineParameter> {
        let parameter = |name: &str, kind: &str, value: String| DefaultWorkflowEngineParameter {
            name: name.to_owned(),
            parameter_type: kind.to_owned(),
            default_value: value,
        };
        let or_none = |value: Option<String>| value.unwrap_or_default();
        vec![
            parameter(CPU, "number", or_none(self.cpu.default.map(number_of_cpus))),
            parameter(MEMORY, "string", or_none(self.memory.default.map(mebibytes))),
            parameter(DISK, "string", or_none(self.disk.default.map(|gib| format!("{gib} GiB")))),
            parameter(TIME, "string", self.time.to_string()),
        ]
    }

    /// The most that a run may ask for, as service-info's tags tell it: name and value.
    #[must_use]
    pub fn most(&self) -> [(String, String); 4] {
        [
            (CPU, number_of_cpus(self.cpu.max())),
            (MEMORY, mebibytes(self.memory.max())),
            (DISK, format!("{} GiB", self.most_disk())),
            (TIME, self.time.to_string()),
        ]
        .map(|(name, value)| (format!("{name}.max"), value))
    }
}

fn number_of_cpus(units: u32) -> String {
    (f64::from(units) / f64::from(UNITS)).to_string()
}

fn cpus(units: u32) -> String {
    format!("{} vCPU", number_of_cpus(units))
}

fn mebibytes(mib: u32) -> String {
    match mib {
        mib if mib.is_multiple_of(MIB) => format!("{} GiB", mib / MIB),
        512 => "0.5 GiB".to_owned(),
        mib => format!("{mib} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(parameters: Value) -> Result<Resources, String> {
        let Value::Object(map) = parameters else { panic!("an object") };
        Resources::of_parameters(&map).map_err(|error| error.to_string())
    }

    fn asked(cpu: Option<u32>, memory: Option<u32>) -> Resources {
        Resources { cpu, memory, ..Resources::default() }
    }

    fn size(bounds: ResourceBounds, cpu: Option<u32>, memory: Option<u32>) -> (u32, u32) {
        let size = bounds.size(&asked(cpu, memory)).expect("a size");
        let number = |text: Option<String>| text.expect("a number").parse().expect("a number");
        (number(size.cpu), number(size.memory))
    }

    #[test]
    fn sizes_are_read_in_the_units_that_people_use() {
        let one = |name: &str, value: Value| read(json!({ name: value })).expect("it can be read");
        for (value, units) in [(json!(2), 2048), (json!("0.5"), 512), (json!(1.5), 1536)] {
            assert_eq!(one(CPU, value).cpu, Some(units));
        }
        for (text, mib) in [
            ("16 GiB", 16_384),
            ("16GiB", 16_384),
            ("1.5 gib", 1536),
            ("1 GB", 954),
            ("1TiB", 1 << 20),
        ] {
            assert_eq!(one(MEMORY, json!(text)).memory, Some(mib), "{text}");
        }
        for (text, gib) in [("100 GiB", 100), ("100 GB", 94), ("2000 MiB", 2)] {
            assert_eq!(one(DISK, json!(text)).disk, Some(gib), "{text}");
        }
        for (value, seconds) in [
            (json!(90), 90),
            (json!("7200"), 7200),
            (json!("2h"), 7200),
            (json!("1d 12h"), 129_600),
            (json!("1h30m5s"), 5405),
            (json!("2 h"), 7200),
        ] {
            assert_eq!(one(TIME, value).time, Some(seconds));
        }
        let others = read(json!({"--debug": null, "--stepwes.cpu": 1})).expect("not ours");
        assert!(others.is_empty());
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        let mut told: Vec<_> = [
            json!({"stepwes.gpu": 1}),
            json!({"stepwes.": 1}),
            json!({"stepwes.cpu": null}),
            json!({"stepwes.cpu": true}),
            json!({"stepwes.cpu": 0}),
            json!({"stepwes.memory": 16}),
            json!({"stepwes.disk": "1e9 GiB"}),
            json!({"stepwes.time": "soon"}),
        ]
        .into_iter()
        .map(|parameters| read(parameters).expect_err("refused"))
        .collect();
        for value in ["-1", "inf", "NaN", "1e3", "2 cores", "", "."] {
            told.push(read(json!({ CPU: value })).expect_err(value));
        }
        for value in ["16", "GiB", "16 K", "16 GiBs", "-1 GiB", "0 GiB", "9999999999 TiB"] {
            told.push(read(json!({ MEMORY: value })).expect_err(value));
        }
        for value in ["", "0", "0h", "1.5h", "h", "2h3", "1w", "-5", "99999999999", "99999d"] {
            told.push(read(json!({ TIME: value })).expect_err(value));
        }
        insta::assert_snapshot!(told[..8].join("\n"), @r#"
        workflow_engine_parameters: "stepwes.gpu" is not a parameter of this service; it has: stepwes.cpu, stepwes.memory, stepwes.disk, stepwes.time, stepwes.dest
        workflow_engine_parameters: "stepwes." is not a parameter of this service; it has: stepwes.cpu, stepwes.memory, stepwes.disk, stepwes.time, stepwes.dest
        workflow_engine_parameters: stepwes.cpu is null, and must be a number of virtual CPUs, such as 2 or 0.5
        workflow_engine_parameters: stepwes.cpu is true, and must be a number of virtual CPUs, such as 2 or 0.5
        workflow_engine_parameters: stepwes.cpu is 0, and must be a number of virtual CPUs, such as 2 or 0.5
        workflow_engine_parameters: stepwes.memory is 16, and must be a size with its unit, such as "16 GiB"
        workflow_engine_parameters: stepwes.disk is "1e9 GiB", and must be a size with its unit, such as "100 GiB"
        workflow_engine_parameters: stepwes.time is "soon", and must be a number of seconds, or such as "2h" or "1d 12h"
        "#);
    }

    #[test]
    fn a_size_between_fargates_is_the_next_one_and_the_rest_is_as_near_to_the_default_as_can_be() {
        let all = ResourceBounds {
            cpu: Bound { default: Some(1024), max: 16_384 },
            memory: Bound { default: Some(4096), max: 122_880 },
            ..ResourceBounds::default()
        };
        for (cpu, memory, expected) in [
            (Some(1024), Some(4096), (1024, 4096)),
            (Some(1025), Some(4097), (2048, 5120)),
            (Some(1), Some(1), (256, 512)),
            (Some(256), Some(513), (256, 1024)),
            // More memory than the CPUs can have, and more CPUs than the memory can.
            (Some(1024), Some(16_384), (2048, 16_384)),
            (Some(8192), Some(512), (8192, 16_384)),
            (Some(8192), Some(16_385), (8192, 20_480)),
            (Some(16_384), Some(40_961), (16_384, 49_152)),
            // One alone.
            (Some(4096), None, (4096, 8192)),
            (Some(256), None, (256, 2048)),
            (None, Some(512), (1024, 2048)),
            (None, Some(16_384), (2048, 16_384)),
            (None, Some(31_000), (8192, 32_768)),
        ] {
            assert_eq!(size(all, cpu, memory), expected, "{cpu:?} {memory:?}");
        }
    }

    #[test]
    fn a_run_that_asks_for_nothing_leaves_the_task_definition_as_it_is() {
        let bounds = ResourceBounds::default();
        assert_eq!(bounds.size(&Resources::default()), Ok(TaskSize::default()));
        let time = Resources { time: Some(60), ..Resources::default() };
        assert_eq!(bounds.size(&time), Ok(TaskSize::default()));
        assert_eq!(
            (bounds.time_of(&time), bounds.time_of(&Resources::default())),
            (60, bounds.time)
        );
    }

    #[test]
    fn run_task_is_told_in_its_own_words() {
        let asked = Resources { cpu: Some(2048), disk: Some(20), ..Resources::default() };
        let told = serde_json::to_value(ResourceBounds::default().size(&asked)).expect("JSON");
        let size = json!({"Cpu": "2048", "Memory": "4096", "EphemeralStorage": {"SizeInGiB": 21}});
        assert_eq!(told, json!({ "Ok": size }));
        assert_eq!(serde_json::to_value(TaskSize::default()).expect("JSON"), json!({}));
    }

    #[test]
    fn an_instance_has_any_size_and_its_disk_is_shared() {
        let bounds = ResourceBounds { sizes: Sizes::Any, ..ResourceBounds::default() };
        assert_eq!(size(bounds, Some(1300), Some(5000)), (1300, 5000));
        assert_eq!(size(bounds, Some(1), Some(1)), (LEAST_CPU, LEAST_MEMORY));
        assert_eq!(size(bounds, None, Some(5000)), (1024, 5000));
        let disk = |gib| Resources { disk: Some(gib), ..Resources::default() };
        assert_eq!(bounds.size(&disk(50)), Ok(TaskSize::default()));
        assert!(bounds.size(&disk(51)).expect_err("more than it has").contains("50 GiB"));
    }

    #[test]
    fn more_than_there_is_is_refused_with_what_there_is() {
        let bounds = ResourceBounds::default();
        let narrow = ResourceBounds { cpu: Bound { default: Some(512), max: 1024 }, ..bounds };
        let told = |bounds: ResourceBounds, asked| bounds.size(&asked).expect_err("refused");
        let more = |field: fn(&mut Resources)| {
            let mut asked = Resources::default();
            field(&mut asked);
            asked
        };
        insta::assert_snapshot!(
            [
                told(bounds, more(|asked| asked.cpu = Some(4097))),
                told(bounds, more(|asked| asked.memory = Some(30_721))),
                told(bounds, more(|asked| asked.disk = Some(201))),
                told(bounds, more(|asked| asked.time = Some(86_401))),
                told(narrow, asked(Some(1024), Some(16_384))),
                told(narrow, asked(None, Some(16_384))),
                told(ResourceBounds { sizes: Sizes::Any, ..bounds }, asked(Some(8192), None)),
            ]
            .join("\n"),
            @r#"
        stepwes.cpu is 4.0009765625 vCPU, more than the 4 vCPU that this service gives a run; sizes are 0.25 vCPU with 0.5 GiB to 2 GiB, 0.5 vCPU with 1 GiB to 4 GiB, 1 vCPU with 2 GiB to 8 GiB, 2 vCPU with 4 GiB to 16 GiB, 4 vCPU with 8 GiB to 30 GiB
        stepwes.memory is 30721 MiB, more than the 30 GiB that this service gives a run; sizes are 0.25 vCPU with 0.5 GiB to 2 GiB, 0.5 vCPU with 1 GiB to 4 GiB, 1 vCPU with 2 GiB to 8 GiB, 2 vCPU with 4 GiB to 16 GiB, 4 vCPU with 8 GiB to 30 GiB
        stepwes.disk is 201 GiB, more than the 200 GiB that this service gives a run
        stepwes.time is 86401 s, more than the 86400 s that this service gives a run
        no task of this service has 1 vCPU with 16 GiB; sizes are 0.25 vCPU with 0.5 GiB to 2 GiB, 0.5 vCPU with 1 GiB to 4 GiB, 1 vCPU with 2 GiB to 8 GiB
        no task of this service has 16 GiB; sizes are 0.25 vCPU with 0.5 GiB to 2 GiB, 0.5 vCPU with 1 GiB to 4 GiB, 1 vCPU with 2 GiB to 8 GiB
        stepwes.cpu is 8 vCPU, more than the 4 vCPU that this service gives a run
        "#
        );
    }

    #[test]
    fn the_most_is_never_less_than_the_default() {
        let bounds = ResourceBounds {
            cpu: Bound { default: Some(8192), max: 256 },
            ..ResourceBounds::default()
        };
        assert_eq!(size(bounds, Some(8192), None), (8192, 16_384));
    }

    #[test]
    fn bounds_are_read_from_json_and_checked() {
        let text = r#"{"compute": "ec2", "cpu": {"default": null, "max": 8192},
            "memory": {"default": null, "max": 16384}, "disk": {"default": null, "max": 50}, "time": 60}"#;
        let bounds: ResourceBounds = serde_json::from_str(text).expect("bounds");
        assert_eq!(bounds.check(), Ok(()));
        assert_eq!((bounds.sizes, bounds.cpu.default, bounds.time), (Sizes::Any, None, 60));
        assert!(ResourceBounds { time: 0, ..bounds }.check().is_err());
        assert!(ResourceBounds { time: LONGEST_TIME + 1, ..bounds }.check().is_err());
    }

    #[test]
    fn service_info_tells_defaults_and_bounds() {
        let bounds = ResourceBounds::default();
        let defaults: Vec<_> = bounds
            .default_parameters()
            .into_iter()
            .map(|parameter| format!("{} {}", parameter.name, parameter.default_value))
            .collect();
        assert_eq!(
            defaults,
            ["stepwes.cpu 1", "stepwes.memory 4 GiB", "stepwes.disk 50 GiB", "stepwes.time 86400"]
        );
        let most = bounds.most().map(|(name, value)| format!("{name} {value}"));
        assert_eq!(
            most,
            [
                "stepwes.cpu.max 4",
                "stepwes.memory.max 30 GiB",
                "stepwes.disk.max 200 GiB",
                "stepwes.time.max 86400"
            ]
        );
    }

    proptest! {
        #[test]
        fn a_task_never_has_less_than_was_asked_for_and_always_a_size_that_fargate_has(
            cpu in proptest::option::of(1u32..20_000),
            memory in proptest::option::of(1u32..130_000),
            max_cpu in 0u32..20_000,
            max_memory in 0u32..130_000,
        ) {
            let bounds = ResourceBounds {
                cpu: Bound { default: Some(1024), max: max_cpu },
                memory: Bound { default: Some(4096), max: max_memory },
                ..ResourceBounds::default()
            };
            let asked = asked(cpu, memory);
            prop_assume!(!asked.is_empty());
            let Ok(size) = bounds.size(&asked) else {
                // Refused: no size there is would have been enough.
                let is_enough = bounds.fargate_sizes().any(|(has_cpu, has_memory)| {
                    has_cpu >= cpu.unwrap_or_default() && has_memory >= memory.unwrap_or_default()
                });
                prop_assert!(!is_enough);
                return Ok(());
            };
            let number = |text: Option<String>| text.unwrap_or_default().parse().unwrap_or(0u32);
            let (has_cpu, has_memory) = (number(size.cpu), number(size.memory));
            prop_assert!(bounds.fargate_sizes().any(|known| known == (has_cpu, has_memory)));
            prop_assert!(has_cpu >= cpu.unwrap_or_default());
            prop_assert!(has_memory >= memory.unwrap_or_default());
        }
    }
}
