//! Hosts that do everything wrong, and a network that is down.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use fastclip_testkit::{Certificate, DnsAnswer, DnsServer, TlsServer, WebAnswer, WebServer};
use serde_json::Value;

use crate::support::{Ran, Scratch, jpeg, json, wait_for_peak};

/// Time-outs in seconds: longer than anything takes that comes at all, however busy the machine is.
const PATIENCE: &str = "60";

fn download<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let fixed =
        ["download", "--input", "list.csv", "--output", "out", "--allow-private-hosts", "--retries", "0"];
    let times = [("--timeout", PATIENCE), ("--total-timeout", PATIENCE), ("--dns-timeout", PATIENCE)];
    let times = times.into_iter().filter(|(option, _)| !more.contains(option));
    let times: Vec<&str> = times.flat_map(|(option, seconds)| [option, seconds]).collect();
    [&fixed[..], &times, more].concat()
}

fn here() -> DnsAnswer {
    DnsAnswer::Addresses(vec!["127.0.0.1".parse().unwrap()], 60)
}

/// How often each outcome stands in the `_stats.json` of a shard.
fn outcomes(scratch: &Scratch, shard: &str) -> BTreeMap<String, u64> {
    let stats = json(&scratch.files("out")[&format!("{shard}_stats.json")]);
    let outcomes = stats["status_dict"].as_object().unwrap();
    outcomes.iter().map(|(outcome, count)| (outcome.clone(), count.as_u64().unwrap())).collect()
}

/// A PNG of which only the header is there: so many pixels a side.
fn png_header(side: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(side.to_be_bytes().repeat(2));
    header.extend([8, 2, 0, 0, 0]);
    let mut checksum = flate2::Crc::new();
    checksum.update(&header);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\r".to_vec();
    png.extend(&header);
    png.extend(checksum.sum().to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png
}

#[test]
fn every_hostile_answer_is_counted_by_its_own_reason() {
    let (scratch, server, names) = (Scratch::new(), WebServer::start(), DnsServer::start());
    let whole = jpeg(0);
    let redirect = |to: &str| WebAnswer::Whole(302, vec![("Location", to.to_owned())], Vec::new());
    let gzip = vec![("Content-Encoding", "gzip".to_owned())];
    let svg = b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>";
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 20 << 20]).unwrap();
    names.answer("broken.example.org", DnsAnswer::Failure);
    names.answer("silent.example.org", DnsAnswer::Silence);
    let mut expected = BTreeMap::new();
    let mut list = "url,caption\n".to_owned();
    for (path, answer, outcome) in [
        ("/good", WebAnswer::Body(whole.clone()), "success"),
        ("/silence", WebAnswer::Silence, "timeout"),
        ("/dripping", WebAnswer::Dripping(Duration::from_millis(100)), "too_slow"),
        ("/endless", WebAnswer::Endless, "body_too_large"),
        ("/head", WebAnswer::EndlessHead, "headers_too_large"),
        ("/short", WebAnswer::Cut(whole[..99].to_vec(), 99), "body_cut"),
        ("/long", WebAnswer::Overlong(whole.clone(), whole.len() / 2), "corrupt_image"),
        ("/loop", redirect("/loop"), "too_many_redirects"),
        ("/gzip", WebAnswer::Whole(200, gzip, bomb.finish().unwrap()), "encoded"),
        ("/huge", WebAnswer::Body(png_header(1_000_000)), "too_large"),
        ("/html", WebAnswer::Body(b"<html><body>not here</body></html>".to_vec()), "html_page"),
        ("/svg", WebAnswer::Body(svg.to_vec()), "svg"),
        ("/empty", WebAnswer::Body(Vec::new()), "empty_body"),
        ("/nothing", WebAnswer::Whole(204, Vec::new(), Vec::new()), "http_204"),
        ("/noise", WebAnswer::Noise, "protocol"),
        ("/gone", WebAnswer::Whole(410, Vec::new(), Vec::new()), "http_410"),
    ] {
        server.answer(path, answer);
        list += &format!("{},{path}\n", server.url(path));
        *expected.entry(outcome.to_owned()).or_default() += 1;
    }
    for (name, outcome) in [
        ("unknown.example.org", "dns_unknown"),
        ("broken.example.org", "dns_failure"),
        ("silent.example.org", "dns_timeout"),
    ] {
        list += &format!("http://{name}/,\n");
        expected.insert(outcome.to_owned(), 1_u64);
    }
    // Port 1 is nobody's; the server speaks no TLS.
    list += &format!("http://127.0.0.1:1/,\n{},\n", server.url("/gone").replace("http:", "https:"));
    expected.extend([("connect_failure".to_owned(), 1), ("tls_failure".to_owned(), 1)]);
    scratch.write("list.csv", list);
    let servers = names.address().to_string();
    // What never comes is not waited for. A name is asked for twice, so that its answers may be late once.
    let times = ["--timeout", "5", "--dns-timeout", "3"];
    let more = ["--dns-servers", &servers, "--max-file-bytes", "1000000"];
    let ran = scratch.ingest_well(&download(&[&times[..], &more].concat()));
    assert_eq!(outcomes(&scratch, "00000"), expected, "{}", ran.stdout);
}

#[test]
fn hosts_that_send_without_end_take_no_more_memory_than_is_stated() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    server.answer("/good", WebAnswer::Body(jpeg(0)));
    server.answer("/endless", WebAnswer::Endless);
    server.answer("/head", WebAnswer::EndlessHead);
    let rows = (0..300).map(|row| server.url(if row % 2 == 0 { "/endless" } else { "/head" }));
    let list: String = rows.chain([server.url("/good")]).map(|url| format!("{url}\n")).collect();
    scratch.write("list.csv", format!("url\n{list}"));
    let mut command = scratch.command(&download(&[
        "--max-file-bytes",
        "4000000",
        "--max-requests-per-host",
        "256",
        "--total-timeout",
        "600",
        "--timeout",
        "600",
    ]));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (code, peak_bytes) = wait_for_peak(child);
    assert_eq!(code, Some(0));
    let expected = [("body_too_large", 150), ("headers_too_large", 150), ("success", 1)];
    assert_eq!(
        outcomes(&scratch, "00000"),
        expected.map(|(outcome, count)| (outcome.to_owned(), count)).into()
    );
    // 150 bodies of 4 MB would be 600 MB.
    assert!(peak_bytes < 300 << 20, "{} MiB", peak_bytes >> 20);
}

#[test]
fn hosts_prove_who_they_are_and_one_connection_serves_many_requests() {
    let scratch = Scratch::new();
    let servers = [
        (TlsServer::start(Certificate::Good), "success"),
        (TlsServer::start(Certificate::OtherHost), "tls_wrong_host"),
        (TlsServer::start(Certificate::Expired), "tls_expired"),
        (TlsServer::start(Certificate::SelfSigned), "tls_unknown_issuer"),
    ];
    let (mut list, mut authorities) = ("url\n".to_owned(), String::new());
    for (server, _) in &servers {
        authorities += &std::fs::read_to_string(server.authority()).unwrap();
        for row in 0..3 {
            server.answer(&format!("/{row}"), jpeg(row));
            list += &format!("{}\n", server.url(&format!("/{row}")));
        }
    }
    scratch.write("list.csv", list);
    let trusted = scratch.write("trusted.pem", authorities);
    let mut command = scratch.command(&download(&["--thread-count", "1"]));
    let ran = Ran::from(command.env("SSL_CERT_FILE", trusted).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let expected = servers.iter().map(|(_, outcome)| ((*outcome).to_owned(), 3));
    assert_eq!(outcomes(&scratch, "00000"), expected.collect(), "{}", ran.stdout);
    let requests = servers[0].0.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.is_http2 && request.connection == 0), "{requests:?}");
}

/// A list of rows of as many hosts.
fn rows_of_many_hosts(scratch: &Scratch, server: &WebServer, num_rows: usize) {
    server.answer("/image", WebAnswer::Body(jpeg(0)));
    let url = server.url("/image");
    let rows: String =
        (0..num_rows).map(|row| url.replace("127.0.0.1", &format!("host{row}.example.org")) + "\n").collect();
    scratch.write("list.csv", format!("url\n{rows}"));
}

/// A DNS server that is down. Its port is held, lest somebody else take it before the server is back; nobody who asks over UDP can tell.
fn dns_server_that_is_down() -> DnsServer {
    let names = DnsServer::start();
    names.answer_otherwise(DnsAnswer::Silence);
    names
}

#[test]
fn rows_of_an_outage_are_not_failed_and_the_same_command_goes_on() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    rows_of_many_hosts(&scratch, &server, 150);
    let names = dns_server_that_is_down();
    let servers = names.address().to_string();
    let list = ["--dns-servers", &servers, "--number-sample-per-shard", "50"];
    let ran =
        scratch.ingest(&download(&[&list[..], &["--max-outage", "0", "--dns-timeout", "0.5"]].concat()));
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    for words in [
        "fetching: paused: no host can be reached (100 rows of 100 hosts in a row); the last one failed with dns_timeout: ",
        "error: stopped, for the network is down; complete shards are kept, and no row of this time counts as failed\n",
        "caused by: nothing could be reached for ",
        "hint: run the same command to continue when the network is back.",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert!(!scratch.path("out/00000.parquet").exists(), "{:?}", scratch.files("out").keys());

    names.answer_otherwise(here());
    let ran = scratch.ingest_well(&download(&list));
    assert!(ran.stdout.starts_with("fetched 150 of 150 rows (100.0 %) in 3 shards"), "{}", ran.stdout);
}

#[test]
fn a_run_goes_on_when_the_network_is_back() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    rows_of_many_hosts(&scratch, &server, 150);
    let names = dns_server_that_is_down();
    let servers = names.address().to_string();
    // Twice this is waited for each name until the network is known to be down.
    let mut child = start(&scratch, &download(&["--dns-servers", &servers, "--dns-timeout", "3"]));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("fetching: paused: no host can be reached")));
    names.answer_otherwise(here());
    assert!(lines.any(|line| line == "fetching: going on"));
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(ran.stdout.starts_with("fetched 150 of 150 rows (100.0 %)"), "{}", ran.stdout);
}

#[test]
fn where_hosts_are_known_to_be_gone_all_rows_may_fail() {
    let (scratch, server, names) = (Scratch::new(), WebServer::start(), DnsServer::start());
    rows_of_many_hosts(&scratch, &server, 150);
    let servers = names.address().to_string();
    let error = scratch.ingest_refused(&download(&["--dns-servers", &servers, "--max-outage", "off"]));
    assert!(error.starts_with("error: none of 150 rows became a sample: 150 dns_unknown\n"), "{error}");
}

fn start(scratch: &Scratch, arguments: &[&str]) -> Child {
    scratch.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn programs_read_progress_and_errors_as_json() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    server.answer("/good", WebAnswer::Body(jpeg(0)));
    scratch.write("list.csv", format!("url\n{}\n{}\n", server.url("/good"), server.url("/gone")));
    let arguments = download(&["--log-format", "json"]);
    let ran = scratch.ingest_well(&arguments);
    let lines: Vec<Value> = ran.stderr.lines().map(|line| json(line.as_bytes())).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["action"]), (&"end".into(), &"fetching".into()));
    assert_eq!((&last["done"], &last["total"], &last["in_flight"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(last["outcomes"], serde_json::json!({"http_404": 1, "success": 1}));
    assert!(last["bytes"].as_u64().unwrap() >= jpeg(0).len() as u64);

    let ran = scratch.ingest(&[&arguments[..], &["--encode-quality", "50"]].concat());
    let error = json(ran.stderr.lines().last().unwrap().as_bytes());
    assert_eq!((&error["event"], &error["code"], ran.code), (&"error".into(), &1.into(), Some(1)));
    assert!(error["message"].as_str().unwrap().contains("encode-quality"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--overwrite"), "{error}");
}

#[test]
fn prometheus_finds_the_counters_of_a_run() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    server.answer("/good", WebAnswer::Body(jpeg(0)));
    server.answer("/silence", WebAnswer::Silence);
    scratch.write("list.csv", format!("url\n{}\n{}\n", server.url("/good"), server.url("/silence")));
    // The silent host keeps the run alive until this test has read what it wants to.
    let patience = ["--timeout", "3600", "--total-timeout", "3600", "--metrics-listen", "127.0.0.1:0"];
    let mut child = start(
        &scratch,
        &[&["download", "--input", "list.csv", "--output", "out", "--allow-private-hosts"][..], &patience]
            .concat(),
    );
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.next().unwrap();
    let address = line.strip_prefix("fetching: counters for Prometheus at http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let get = || {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    let mut answer = get();
    while !answer.contains("\ningest_outcomes_total{action=\"fetching\",outcome=\"success\"} 1\n") {
        assert!(child.try_wait().unwrap().is_none(), "{answer}");
        std::thread::yield_now();
        answer = get();
    }
    assert!(answer.contains("\ningest_expected{action=\"fetching\"} 2\n"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn too_few_open_files_are_noticed_before_the_run() {
    let scratch = Scratch::new();
    scratch.write("list.csv", "url\nhttp://127.0.0.1/\n");
    let command = scratch.command(&download(&["--thread-count", "4000"]));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (removed, _) in command.get_envs() {
        limited.env_remove(removed);
    }
    let ran = Ran::from(limited.output().unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let expected = "error: --thread-count 4000 and --max-dns-lookups 256 need 8356 open files, and 1024 are allowed\n\
                    hint: ask for less, or raise the limit (ulimit -Hn, LimitNOFILE= of systemd)\n";
    assert_eq!(ran.stderr, expected);
}
