//! Ranks on several machines, which here are processes that find each other by what a launcher tells them, and network
//! namespaces, which share nothing but a cable.

use std::process::Command;

use fastclip_testkit::{Ranks, free_port, run};

use crate::setting::{Setting, assert_same_run, forget_launchers, succeed};

/// The launchers of two machines with a rank each.
fn launcher(setting: &Setting, name: &str, machine: usize, host: &str, port: u16) -> Command {
    let mut command = setting.train("launch");
    command.args(["--ranks", "1", "--nodes", "2", "--node-rank", &machine.to_string()]);
    command.args(["--master-addr", host, "--port", &port.to_string()]).args(setting.flags(name, 2));
    command
}

#[test]
fn a_launcher_on_each_machine_makes_one_run() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let port = free_port();
    let machines = Ranks::new(2).start(|machine| launcher(&setting, "machines", machine, "127.0.0.2", port));
    for finished in machines.wait() {
        finished.assert_code(0);
    }
    assert_same_run(&setting, "whole", "machines");
}

#[test]
fn machines_that_are_described_by_halves_are_refused() {
    let setting = Setting::new();
    for (flags, text) in [
        (&["--nodes", "2"][..], "`nodes`, `node-rank` and `master-addr` must be given together"),
        (
            &["--nodes", "2", "--node-rank", "2", "--master-addr", "a"],
            "`node-rank` is 2, but `nodes` is 2: it counts from 0",
        ),
        (
            &["--nodes", "2", "--node-rank", "0", "--master-addr", "a", "--max-restarts", "1"],
            "`max-restarts` is 1, but `nodes` is 2",
        ),
        (&["--min-ranks", "2"], "`min-ranks` is 2, but `ranks` is 1"),
    ] {
        let mut command = setting.train("launch");
        command.args(["--ranks", "1"]).args(flags).args(setting.flags("run", 1));
        run(&mut command).assert_code(1).assert_says(&[text]);
    }
}

#[test]
fn ranks_of_slurm_and_of_mpi_find_each_other_by_what_these_tell_them() {
    let setting = Setting::new();
    succeed(setting.launched("whole", 2));
    let port = free_port();
    for name in ["slurm", "mpi"] {
        let ranks = Ranks::new(2).start(|rank| {
            let rank = rank.to_string();
            // What the launcher of the test sets is taken away again.
            let mut command = Command::new("env");
            forget_launchers(&mut command);
            for variable in
                ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
            {
                command.args(["-u", variable]);
            }
            let variables = if name == "slurm" {
                vec![
                    format!("SLURM_PROCID={rank}"),
                    format!("SLURM_LOCALID={rank}"),
                    "SLURM_STEP_NUM_TASKS=2".to_owned(),
                    "SLURM_STEP_NODELIST=localhost,other[1-3]".to_owned(),
                    // From which the port follows.
                    format!("SLURM_JOB_ID={}", 17_000 * 5 + u64::from(port) % 17_000),
                ]
            } else {
                vec![
                    format!("OMPI_COMM_WORLD_RANK={rank}"),
                    format!("OMPI_COMM_WORLD_LOCAL_RANK={rank}"),
                    "OMPI_COMM_WORLD_SIZE=2".to_owned(),
                    "MASTER_ADDR=127.0.0.3".to_owned(),
                    format!("MASTER_PORT={port}"),
                ]
            };
            command.args(variables).args([env!("CARGO_BIN_EXE_train"), "run"]).args(setting.flags(name, 2));
            command.current_dir(setting.path(""));
            command
        });
        for finished in ranks.wait() {
            finished.assert_code(0);
        }
        assert_same_run(&setting, "whole", name);
    }
}

/// Lays a cable between two network namespaces and starts a launcher in each.
const TWO_NAMESPACES: &str = r#"
set -e
ip link set lo up
unshare --net sleep 600 &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
inside() { nsenter --target $other --net "$@"; }
ip link add left type veth peer name right netns $other
ip addr add 10.77.0.1/24 dev left && ip link set left up
inside ip addr add 10.77.0.2/24 dev right && inside ip link set right up && inside ip link set lo up
inside "$@" --node-rank 1 & second=$!
"$@" --node-rank 0 & first=$!
wait $first && wait $second && status=0 || status=$?
kill $other
exit $status
"#;

#[test]
fn machines_with_a_network_of_their_own_make_one_run() {
    let setting = Setting::new();
    let namespaces = ["unshare", "--user", "--map-root-user", "--net"];
    let may = Command::new(namespaces[0]).args(&namespaces[1..]).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not make network namespaces here");
        return;
    }
    succeed(setting.launched("whole", 2));
    let machines = Ranks::new(1).start(|_| {
        let mut command = Command::new(namespaces[0]);
        forget_launchers(&mut command);
        command.args(&namespaces[1..]).args(["sh", "-c", TWO_NAMESPACES, "sh", env!("CARGO_BIN_EXE_train")]);
        command.args(["launch", "--ranks", "1", "--nodes", "2", "--master-addr", "10.77.0.1"]);
        command.args(setting.flags("machines", 2)).current_dir(setting.path(""));
        command
    });
    machines.wait().remove(0).assert_code(0);
    assert_same_run(&setting, "whole", "machines");
}
