//! Which rank this process is, as the launcher says.
//!
//! Launchers talk through environment variables. They are read through a function that the caller passes, so that nothing
//! here depends on the process it runs in. The first launcher of the list below whose rank variable is set is believed;
//! one that starts inside another (torchrun inside `srun`) sets its own variables last, and they mean the inner ranks.
//!
//! | launcher | rank | world size | rank on its machine | where rank 0 is |
//! |---|---|---|---|---|
//! | torchrun, Kubernetes operators, `train launch` | `RANK` | `WORLD_SIZE` | `LOCAL_RANK` | `MASTER_ADDR`, `MASTER_PORT` |
//! | Slurm (`srun`) | `SLURM_PROCID` | `SLURM_STEP_NUM_TASKS`, `SLURM_NTASKS` | `SLURM_LOCALID` | first node of `SLURM_STEP_NODELIST`, `SLURM_JOB_NODELIST`, else `SLURM_LAUNCH_NODE_IPADDR`; port from `SLURM_JOB_ID` |
//! | Open MPI (`mpirun`) | `OMPI_COMM_WORLD_RANK` | `OMPI_COMM_WORLD_SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK` | `MASTER_ADDR`, `MASTER_PORT` |
//!
//! `MASTER_ADDR` and `MASTER_PORT`, where set, win under every launcher.

use std::fmt;
use std::str::FromStr;

/// Variable through which `train launch` tells its ranks whom not to outlive.
pub const LAUNCHER_PID_VARIABLE: &str = "FASTCLIP_LAUNCHER_PID";

/// Variable through which torchrun and `train launch` tell how often they have started the ranks again.
pub const RESTARTS_VARIABLE: &str = "TORCHELASTIC_RESTART_COUNT";

/// Where ports for Slurm jobs start, and how many there are: below the range that Linux hands out by itself.
const SLURM_PORTS: (u16, u64) = (15_000, 17_000);

/// What kind of launcher started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// Nobody: a run in one process.
    None,
    /// torchrun or anything that sets the same variables.
    Torchrun,
    /// Slurm's `srun`.
    Slurm,
    /// Open MPI's `mpirun`.
    OpenMpi,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::None => "no launcher",
            Launcher::Torchrun => "torchrun",
            Launcher::Slurm => "Slurm",
            Launcher::OpenMpi => "Open MPI",
        })
    }
}

/// Where the ranks of a run find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Name or address of the machine.
    pub host: String,
    /// Port on it.
    pub port: u16,
    /// Whether the launcher serves the store there, as torchrun does; otherwise rank 0 serves it.
    pub is_served_by_launcher: bool,
    /// What separates this run from others in a store that outlives it: torchrun's counts restarts.
    pub attempt: String,
}

/// The place of this process in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Who started the process.
    pub launcher: Launcher,
    /// Which of the ranks it is, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
    /// Which of the ranks on its machine it is, from 0: the GPU it should use.
    pub local_rank: usize,
    /// Where to meet; nothing for a world of one.
    pub meeting: Option<Meeting>,
    /// The network interface to talk on (`GLOO_SOCKET_IFNAME`); by default the one that leads to the meeting.
    pub interface: Option<String>,
    /// How often the ranks were started again: torchrun and `train launch` count, and Slurm counts jobs that it queued again.
    pub num_restarts: u64,
    /// Ranks on this machine, as far as the launcher says; on the one with the most of them where it says that only.
    pub num_local_ranks: usize,
    /// Processors of this machine that they share, where the launcher says so: it may have given each rank its own already.
    pub num_local_processors: Option<usize>,
    /// The process of `train launch` that this one must not outlive.
    pub launcher_pid: Option<u32>,
    /// Whether libtorch may write its own log to the terminal, as `TORCH_CPP_LOG_LEVEL` asks for.
    pub keeps_torch_log: bool,
}

/// Variables that do not describe a rank.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A value is not what the variable should hold.
    #[error("the environment variable `{variable}` is `{value}`, not {expected}")]
    Malformed {
        /// Its name.
        variable: String,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A variable is not set while others ask for it.
    #[error("the environment variable `{variable}` is not set, but `{because}` is `{value}`")]
    Missing {
        /// Its name.
        variable: String,
        /// The variable that asks for it.
        because: String,
        /// What that one holds.
        value: String,
    },
    /// Two variables contradict each other.
    #[error(
        "the environment variables contradict each other: `{first}` is {first_value}, `{second}` is {second_value}"
    )]
    Contradiction {
        /// One variable.
        first: String,
        /// What it holds.
        first_value: usize,
        /// The other.
        second: String,
        /// What that one holds.
        second_value: usize,
    },
}

impl Environment {
    /// Reads the environment through `lookup`, which returns the value of a variable, if it is set.
    ///
    /// A variable that is set to nothing counts as not set.
    ///
    /// # Errors
    ///
    /// Names the variables that are malformed, missing or contradict each other.
    pub fn detect(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let variables = Variables(&lookup);
        let (launcher, place) = if let Some(place) = variables.place("RANK", &["WORLD_SIZE"], "LOCAL_RANK")? {
            (Launcher::Torchrun, place)
        } else if let Some(place) =
            variables.place("SLURM_PROCID", &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], "SLURM_LOCALID")?
        {
            (Launcher::Slurm, place)
        } else if let Some(place) = variables.place(
            "OMPI_COMM_WORLD_RANK",
            &["OMPI_COMM_WORLD_SIZE"],
            "OMPI_COMM_WORLD_LOCAL_RANK",
        )? {
            (Launcher::OpenMpi, place)
        } else {
            (Launcher::None, Place { rank: 0, world_size: 1, local_rank: 0, size_variable: "WORLD_SIZE" })
        };
        variables.check_world_size(launcher, &place)?;
        let meeting = if place.world_size == 1 { None } else { Some(variables.meeting(launcher, &place)?) };
        Ok(Self {
            launcher,
            rank: place.rank,
            world_size: place.world_size,
            local_rank: place.local_rank,
            meeting,
            interface: variables.get("GLOO_SOCKET_IFNAME"),
            num_restarts: variables.num_restarts()?,
            num_local_ranks: variables.num_local_ranks(launcher),
            num_local_processors: match launcher {
                Launcher::Slurm => variables.get("SLURM_CPUS_ON_NODE").and_then(|number| number.parse().ok()),
                _ => None,
            },
            launcher_pid: variables.number(LAUNCHER_PID_VARIABLE, "the id of a process")?,
            keeps_torch_log: variables.get("TORCH_CPP_LOG_LEVEL").is_some(),
        })
    }
}

/// What the variables of one launcher say.
struct Place {
    rank: usize,
    world_size: usize,
    local_rank: usize,
    size_variable: &'static str,
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn get(&self, variable: &str) -> Option<String> {
        (self.0)(variable).filter(|value| !value.is_empty())
    }

    fn number<T: FromStr>(
        &self,
        variable: &str,
        expected: &'static str,
    ) -> Result<Option<T>, EnvironmentError> {
        let Some(value) = self.get(variable) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(EnvironmentError::Malformed { variable: variable.to_owned(), value, expected }),
        }
    }

    /// Reads rank and world size, or nothing if the rank is not set.
    fn place(
        &self,
        rank_variable: &'static str,
        size_variables: &[&'static str],
        local_variable: &'static str,
    ) -> Result<Option<Place>, EnvironmentError> {
        let Some(rank) = self.number::<usize>(rank_variable, "a rank, counted from 0")? else {
            return Ok(None);
        };
        let size_variable = size_variables.iter().find(|variable| self.get(variable).is_some());
        let Some(&size_variable) = size_variable else {
            return Err(self.missing(size_variables[0], rank_variable));
        };
        let expected = "a number of processes, at least 1";
        let world_size = self.number::<usize>(size_variable, expected)?.unwrap_or_default();
        if world_size == 0 {
            let value = "0".to_owned();
            return Err(EnvironmentError::Malformed { variable: size_variable.to_owned(), value, expected });
        }
        if rank >= world_size {
            return Err(contradiction(rank_variable, rank, size_variable, world_size));
        }
        // Operators that run one process per pod leave it out.
        let local_rank =
            self.number::<usize>(local_variable, "a rank on this machine, counted from 0")?.unwrap_or(0);
        if local_rank >= world_size {
            return Err(contradiction(local_variable, local_rank, size_variable, world_size));
        }
        Ok(Some(Place { rank, world_size, local_rank, size_variable }))
    }

    /// Refuses a `WORLD_SIZE` that nobody used but that says otherwise: batch scripts export it for other trainers.
    fn check_world_size(&self, launcher: Launcher, place: &Place) -> Result<(), EnvironmentError> {
        let world_size = self.number::<usize>("WORLD_SIZE", "a number of processes, at least 1")?;
        match world_size {
            Some(world_size) if world_size != place.world_size => match launcher {
                Launcher::None => Err(self.missing("RANK", "WORLD_SIZE")),
                _ => Err(contradiction("WORLD_SIZE", world_size, place.size_variable, place.world_size)),
            },
            _ => Ok(()),
        }
    }

    fn num_restarts(&self) -> Result<u64, EnvironmentError> {
        let mut sum = 0;
        for variable in [RESTARTS_VARIABLE, "SLURM_RESTART_COUNT"] {
            sum += self.number::<u64>(variable, "a number of restarts")?.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Only decides how many threads a rank takes, so that what is not understood is passed over.
    fn num_local_ranks(&self, launcher: Launcher) -> usize {
        let variables: &[&str] = match launcher {
            Launcher::Torchrun => &["LOCAL_WORLD_SIZE"],
            Launcher::Slurm => &["SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"],
            Launcher::OpenMpi => &["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"],
            Launcher::None => &[],
        };
        variables.iter().find_map(|variable| most_tasks(&self.get(variable)?)).unwrap_or(1)
    }

    fn meeting(&self, launcher: Launcher, place: &Place) -> Result<Meeting, EnvironmentError> {
        let is_served_by_launcher = launcher == Launcher::Torchrun
            && self
                .get("TORCHELASTIC_USE_AGENT_STORE")
                .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let attempt = self.get(RESTARTS_VARIABLE).unwrap_or_else(|| "0".to_owned());
        let host = match self.get("MASTER_ADDR").or_else(|| self.derived_host(launcher, place)) {
            Some(host) => host,
            None => return Err(self.missing("MASTER_ADDR", place.size_variable)),
        };
        let port = match self.number::<u16>("MASTER_PORT", "a port, from 1 to 65535")? {
            Some(0) => {
                return Err(EnvironmentError::Malformed {
                    variable: "MASTER_PORT".to_owned(),
                    value: "0".to_owned(),
                    expected: "a port, from 1 to 65535",
                });
            }
            Some(port) => port,
            None => self
                .derived_port(launcher)?
                .ok_or_else(|| self.missing("MASTER_PORT", place.size_variable))?,
        };
        Ok(Meeting { host, port, is_served_by_launcher, attempt })
    }

    /// Returns where rank 0 is, for launchers that say so in their own words.
    fn derived_host(&self, launcher: Launcher, place: &Place) -> Option<String> {
        match launcher {
            // Slurm puts rank 0 on the first node of the step. The launch node is the second choice, because it is where
            // `srun` was typed: often a login node on which no rank runs.
            Launcher::Slurm => ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]
                .iter()
                .find_map(|variable| first_node(&self.get(variable)?))
                .or_else(|| self.get("SLURM_LAUNCH_NODE_IPADDR")),
            Launcher::OpenMpi => {
                let num_local = self.get("OMPI_COMM_WORLD_LOCAL_SIZE")?.parse::<usize>().ok()?;
                (num_local == place.world_size).then(|| "127.0.0.1".to_owned())
            }
            Launcher::Torchrun | Launcher::None => None,
        }
    }

    /// Returns a port that all ranks of a job come to by themselves, and other jobs hardly.
    fn derived_port(&self, launcher: Launcher) -> Result<Option<u16>, EnvironmentError> {
        if launcher != Launcher::Slurm {
            return Ok(None);
        }
        let job = self.number::<u64>("SLURM_JOB_ID", "the number of a job")?;
        let (first, num_ports) = SLURM_PORTS;
        Ok(job.map(|job| first + u16::try_from(job % num_ports).expect("fewer ports than a u16 holds")))
    }

    fn missing(&self, variable: &str, because: &str) -> EnvironmentError {
        EnvironmentError::Missing {
            variable: variable.to_owned(),
            because: because.to_owned(),
            value: self.get(because).unwrap_or_default(),
        }
    }
}

fn contradiction(first: &str, first_value: usize, second: &str, second_value: usize) -> EnvironmentError {
    EnvironmentError::Contradiction {
        first: first.to_owned(),
        first_value,
        second: second.to_owned(),
        second_value,
    }
}

/// Returns the largest number of a list as Slurm writes it, such as 8 of `8(x2),4`; nothing if it is none.
fn most_tasks(list: &str) -> Option<usize> {
    let counts = list.split(',').map(|part| part.split('(').next().unwrap_or_default().trim().parse());
    let counts: Vec<usize> = counts.collect::<Result<_, _>>().ok()?;
    counts.into_iter().max().filter(|&count| count > 0)
}

/// Returns the first name of a Slurm node list, such as `gpu03` of `gpu[03-05,9],login1`.
fn first_node(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (stem, rest) = list.split_at(end);
    let Some(ranges) = rest.strip_prefix('[') else {
        return (!stem.is_empty()).then(|| stem.to_owned());
    };
    let (ranges, tail) = ranges.split_once(']')?;
    let number = ranges.split(['-', ',']).next().filter(|number| !number.is_empty())?;
    // A name may go on after the brackets, as in `rack[1-2]-node`; more brackets are beyond what Slurm writes by default.
    let tail = tail.split(',').next().unwrap_or_default();
    (!tail.contains('[')).then(|| format!("{stem}{number}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::detect(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refusal(variables: &[(&str, &str)]) -> String {
        detect(variables).unwrap_err().to_string()
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "node-a"),
        ("MASTER_PORT", "29400"),
    ];

    #[test]
    fn without_a_launcher_a_process_is_alone() {
        let environment = detect(&[("HOME", "/root")]).unwrap();
        assert_eq!((environment.rank, environment.world_size), (0, 1));
        assert_eq!((environment.launcher, environment.meeting), (Launcher::None, None));
    }

    #[test]
    fn torchruns_variables_are_read() {
        let environment = detect(&TORCHRUN).unwrap();
        assert_eq!(environment.launcher, Launcher::Torchrun);
        assert_eq!((environment.rank, environment.world_size, environment.local_rank), (5, 8, 1));
        let meeting = environment.meeting.unwrap();
        assert_eq!((meeting.host.as_str(), meeting.port), ("node-a", 29400));
        assert!(!meeting.is_served_by_launcher);
    }

    #[test]
    fn torchruns_own_store_and_its_restarts_are_seen() {
        let mut variables = TORCHRUN.to_vec();
        variables.extend([("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]);
        let environment = detect(&variables).unwrap();
        assert_eq!(environment.num_restarts, 2);
        let meeting = environment.meeting.unwrap();
        assert!(meeting.is_served_by_launcher);
        assert_eq!(meeting.attempt, "2");
    }

    #[test]
    fn a_pod_without_local_rank_is_the_first_on_its_machine() {
        let variables: Vec<_> = TORCHRUN.into_iter().filter(|(name, _)| *name != "LOCAL_RANK").collect();
        assert_eq!(detect(&variables).unwrap().local_rank, 0);
    }

    #[test]
    fn the_inner_launcher_is_believed() {
        let mut variables = TORCHRUN.to_vec();
        variables.extend([("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]);
        assert_eq!(detect(&variables).unwrap().rank, 5);
    }

    #[test]
    fn slurms_variables_are_read() {
        let environment = detect(&[
            ("SLURM_PROCID", "3"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_JOB_NODELIST", "gpu[03-04]"),
            ("SLURM_JOB_ID", "17001"),
        ])
        .unwrap();
        assert_eq!(environment.launcher, Launcher::Slurm);
        assert_eq!((environment.rank, environment.world_size, environment.local_rank), (3, 4, 1));
        let meeting = environment.meeting.unwrap();
        assert_eq!((meeting.host.as_str(), meeting.port), ("gpu03", 15_001));
    }

    #[test]
    fn the_size_of_a_slurm_step_wins_over_that_of_its_job() {
        let environment =
            detect(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_STEP_NUM_TASKS", "1")]);
        assert_eq!(environment.unwrap().world_size, 1);
    }

    #[test]
    fn slurms_launch_node_serves_where_no_list_of_nodes_is_given() {
        let environment = detect(&[
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7"),
            ("MASTER_PORT", "4000"),
        ]);
        assert_eq!(environment.unwrap().meeting.unwrap().host, "10.0.0.7");
    }

    #[test]
    fn a_job_that_slurm_queued_again_is_a_restart() {
        let again = ("SLURM_RESTART_COUNT", "1");
        assert_eq!(detect(&[again]).unwrap().num_restarts, 1);
        // Inside of such a job, other launchers count from 0.
        let environment = detect(&[&TORCHRUN[..], &[again, (RESTARTS_VARIABLE, "0")]].concat());
        let environment = environment.unwrap();
        assert_eq!((environment.num_restarts, environment.meeting.unwrap().attempt.as_str()), (1, "0"));
    }

    #[test]
    fn every_launcher_says_how_many_ranks_share_a_machine() {
        let torchrun = [&TORCHRUN[..], &[("LOCAL_WORLD_SIZE", "4")]].concat();
        assert_eq!(detect(&torchrun).unwrap().num_local_ranks, 4);
        let meeting = [("MASTER_ADDR", "a"), ("MASTER_PORT", "4000")];
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "20"), ("SLURM_CPUS_ON_NODE", "64")];
        for (variable, value, expected) in [
            ("SLURM_STEP_TASKS_PER_NODE", "8(x2),4", 8),
            ("SLURM_STEP_TASKS_PER_NODE", "4,8", 8),
            ("SLURM_NTASKS_PER_NODE", "8", 8),
            ("SLURM_STEP_TASKS_PER_NODE", "many", 1),
        ] {
            let environment = detect(&[&slurm[..], &meeting, &[(variable, value)]].concat()).unwrap();
            assert_eq!(environment.num_local_ranks, expected, "{value}");
            assert_eq!(environment.num_local_processors, Some(64));
        }
        let mpi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")];
        for variable in ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"] {
            let environment = detect(&[&mpi[..], &meeting, &[(variable, "2")]].concat()).unwrap();
            assert_eq!((environment.num_local_ranks, environment.num_local_processors), (2, None));
        }
        assert_eq!(detect(&[]).unwrap().num_local_ranks, 1);
    }

    #[test]
    fn open_mpis_variables_are_read() {
        let environment = detect(&[
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("MASTER_PORT", "4000"),
        ])
        .unwrap();
        assert_eq!(environment.launcher, Launcher::OpenMpi);
        assert_eq!(environment.meeting.unwrap().host, "127.0.0.1");
    }

    #[test]
    fn node_lists_are_read_as_slurm_writes_them() {
        let cases = [
            ("gpu1", Some("gpu1")),
            ("gpu1,gpu2", Some("gpu1")),
            ("gpu[07-09,12]", Some("gpu07")),
            ("rack[1-2]-node,login", Some("rack1-node")),
            ("login,gpu[1-2]", Some("login")),
            ("", None),
            ("gpu[", None),
            ("gpu[]", None),
            ("a[1-2]b[3-4]", None),
        ];
        for (list, first) in cases {
            assert_eq!(first_node(list).as_deref(), first, "{list}");
        }
    }

    #[test]
    fn malformed_values_are_refused_by_name() {
        assert_eq!(
            refusal(&[("RANK", "first"), ("WORLD_SIZE", "2")]),
            "the environment variable `RANK` is `first`, not a rank, counted from 0"
        );
        assert_eq!(
            refusal(&[("RANK", "0"), ("WORLD_SIZE", "0")]),
            "the environment variable `WORLD_SIZE` is `0`, not a number of processes, at least 1"
        );
        let mut variables = TORCHRUN;
        variables[4].1 = "70000";
        assert_eq!(
            refusal(&variables),
            "the environment variable `MASTER_PORT` is `70000`, not a port, from 1 to 65535"
        );
    }

    #[test]
    fn missing_variables_are_named_with_the_one_that_asks_for_them() {
        assert_eq!(
            refusal(&[("RANK", "0")]),
            "the environment variable `WORLD_SIZE` is not set, but `RANK` is `0`"
        );
        assert_eq!(
            refusal(&[("WORLD_SIZE", "2")]),
            "the environment variable `RANK` is not set, but `WORLD_SIZE` is `2`"
        );
        assert_eq!(
            refusal(&[("RANK", "0"), ("WORLD_SIZE", "2")]),
            "the environment variable `MASTER_ADDR` is not set, but `WORLD_SIZE` is `2`"
        );
        assert_eq!(
            refusal(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")]),
            "the environment variable `MASTER_PORT` is not set, but `WORLD_SIZE` is `2`"
        );
    }

    #[test]
    fn contradictions_name_both_variables() {
        assert_eq!(
            refusal(&[("RANK", "2"), ("WORLD_SIZE", "2")]),
            "the environment variables contradict each other: `RANK` is 2, `WORLD_SIZE` is 2"
        );
        assert_eq!(
            refusal(&[("WORLD_SIZE", "8"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]),
            "the environment variables contradict each other: `WORLD_SIZE` is 8, `SLURM_NTASKS` is 4"
        );
    }
}
