//! Ranks that come together, or not.

use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Instant;

use fastclip_testkit::free_port;

use crate::processes::written;
use crate::{SHORT_TIMEOUT, TIMEOUT, outputs, start_rank, tell, told, try_join};

pub(crate) fn meets() {
    let start = Instant::now();
    if let Err(error) = try_join(SHORT_TIMEOUT, "same") {
        println!("\nseconds: {}", start.elapsed().as_secs_f32());
        tell(&error);
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_by_all_others() {
    let port = free_port();
    let children = [0, 2, 3].map(|rank| start_rank("meets", rank, 5, port));
    for output in outputs(children.into()) {
        let told = told(&output);
        let expected =
            format!("ranks 1, 4 did not come to 127.0.0.1:{port} within 10 s; the world size is 5");
        assert_eq!(told, expected, "{}", written(&output));
    }
}

#[test]
fn rank_zero_is_named_when_it_does_not_come() {
    let port = free_port();
    let outputs = outputs(vec![start_rank("meets", 1, 2, port)]);
    let told = told(&outputs[0]);
    assert!(told.starts_with(&format!("rank 0 did not come to 127.0.0.1:{port} within 10 s")), "{told}");
}

#[test]
fn a_port_in_use_is_told_at_once_with_its_address() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = &outputs(vec![start_rank("meets", 0, 2, port)])[0];
    let expected =
        format!("could not serve the meeting of ranks at 127.0.0.1:{port}, because the port is in use");
    assert_eq!(told(output), expected);
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text.lines().find_map(|line| line.strip_prefix("seconds: ")).unwrap();
    assert!(seconds.parse::<f32>().unwrap() < SHORT_TIMEOUT.as_secs_f32(), "{seconds}");
}

#[test]
fn libtorch_does_not_bury_our_message_under_its_own() {
    let outputs = outputs(vec![start_rank("meets", 1, 2, free_port())]);
    let stderr = String::from_utf8_lossy(&outputs[0].stderr);
    assert!(!stderr.contains("frame #"), "{stderr}");
}

pub(crate) fn differs() {
    let rank = env::var("RANK").unwrap();
    let configuration = if rank == "1" { "config 77" } else { "config 42" };
    tell(&try_join(TIMEOUT, configuration).map(drop).unwrap_err());
}

#[test]
fn a_rank_started_with_other_settings_is_named_with_both_values() {
    let port = free_port();
    let children: Vec<_> = (0..3).map(|rank| start_rank("differs", rank, 3, port)).collect();
    let pid = children[1].id();
    for output in outputs(children) {
        let told = told(&output);
        assert!(told.starts_with(&format!("rank 1 (process {pid} on ")), "{told}");
        assert!(told.ends_with("has the setting `config 77`, rank 0 has `config 42`"), "{told}");
    }
}

#[test]
fn ranks_that_disagree_about_their_number_say_so() {
    let port = free_port();
    let outputs = outputs(vec![start_rank("meets", 0, 2, port), start_rank("meets", 2, 3, port)]);
    for output in outputs {
        let told = told(&output);
        assert!(told.starts_with("rank 2 (process "), "{told}");
        assert!(told.ends_with("has the world size `3`, rank 0 has `2`"), "{told}");
    }
}

#[test]
fn two_processes_cannot_be_the_same_rank() {
    let port = free_port();
    let children = vec![
        start_rank("meets", 0, 3, port),
        start_rank("meets", 1, 3, port),
        start_rank("meets", 1, 3, port),
    ];
    let pids = [children[1].id(), children[2].id()];
    let told: Vec<String> = outputs(children).iter().map(told).collect();
    let taken = |pid: u32| {
        move |text: &&String| {
            text.starts_with(&format!("rank 1 (process {pid} on ")) && text.contains("has come to 127.0.0.1:")
        }
    };
    let num_taken = pids.iter().filter_map(|pid| told[1..].iter().find(taken(*pid))).count();
    assert_eq!(num_taken, 1, "{told:#?}");
}
