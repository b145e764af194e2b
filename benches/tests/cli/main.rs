//! The program against a stand-in server, as a user runs it.

mod stand_in;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::stand_in::{Behaviour, GOOD, StandIn};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kimi-bench"))
        .args(arguments)
        .env_remove("KIMI_API_KEY")
        .output()
        .expect("it runs")
}

/// Runs a mode that must succeed, and returns its results.
fn results(url: &str, folder: &Path, name: &str, arguments: &[&str]) -> Value {
    let [json, html] = ["json", "html"].map(|ending| folder.join(format!("{name}.{ending}")));
    let (json, html) = (json.to_str().expect("UTF-8"), html.to_str().expect("UTF-8"));
    let output = bench(&[arguments, &["--base-url", url, "--json", json, "--html", html]].concat());
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    check_page(&fs::read_to_string(html).expect("a page"));
    serde_json::from_str(&fs::read_to_string(json).expect("results")).expect("JSON")
}

/// Well formed, complete in itself, with at least one chart that shows something.
fn check_page(page: &str) {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(page, options).expect("well formed");
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    assert_eq!(["script", "link", "img", "iframe"].map(count), [0; 4]);
    assert!(document.descendants().all(|node| !node.has_attribute("src") && !node.has_attribute("href")));
    assert!(!page.contains("url(") && !page.contains("@import") && !page.contains("NaN"));
    assert!(count("table") > 0 && count("circle") + count("rect") > 0, "nothing is drawn");
}

fn ratio(results: &Value, name: &str) -> f64 {
    let ratios = results["ratios"].as_array().expect("ratios");
    let found = ratios
        .iter()
        .find(|ratio| ratio["name"].as_str().expect("a name").contains(name))
        .expect("a ratio of this name");
    found["value"].as_f64().expect("a number")
}

#[test]
fn a_closed_loop_measures_each_concurrency_and_hits_the_wanted_lengths() {
    let (server, folder) = (StandIn::start(GOOD), tempfile::tempdir().unwrap());
    let arguments = ["throughput", "--concurrency", "1,4", "--requests", "8", "--warmup", "2"];
    let lengths = ["--prompt-tokens", "300", "--output-tokens", "20", "--slo-ttft-ms", "60000"];
    let results = results(&server.url, folder.path(), "t", &[&arguments[..], &lengths].concat());
    let points = results["sections"][0]["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    assert_eq!(server.streams(), 2 * (8 + 2), "warm-ups are asked");
    for point in points {
        assert_eq!(
            (&point["answers"], &point["output_tokens"]),
            (&8.into(), &160.into()),
            "and do not count"
        );
        assert!(point["prompt_tokens"].as_u64().unwrap().abs_diff(8 * 300) <= 16, "{point}");
        assert!(point["itl_ms"]["p50"].as_f64().unwrap() >= 1.0);
        assert_eq!(point["good_share"], 1.0);
    }
    // Pieces come at the pace of sleeping, so four clients get about four times as many.
    assert!(ratio(&results, "output of 4 clients over 1 client") > 1.5);
    assert_eq!(results["settings"]["seed"], 1);
}

#[test]
fn an_open_loop_keeps_its_rate_and_agents_find_their_prefix() {
    let (server, folder) = (StandIn::start(GOOD), tempfile::tempdir().unwrap());
    let arguments = ["serve", "--rate", "80,160", "--duration", "2", "--load", "agentic", "--scale", "0.02"];
    let results = results(&server.url, folder.path(), "s", &arguments);
    for (point, rate) in results["sections"][0]["points"].as_array().unwrap().iter().zip([80, 160]) {
        // Conversations of 8 turns begin 8 times more seldom; a count of mean 20 has deviation 4.5, 40 has 6.3.
        let answers = point["answers"].as_u64().unwrap();
        assert!(answers.abs_diff(2 * rate) < rate && answers % 8 == 0, "{answers} answers at {rate}/s");
        assert!(point["cached_tokens"].as_f64().unwrap() > 0.7 * point["prompt_tokens"].as_f64().unwrap());
    }
    assert_eq!(
        results["warnings"].as_array().unwrap().iter().filter(|w| w.to_string().contains("cache")).count(),
        0
    );
}

#[test]
fn a_known_prefix_is_told_from_an_unknown_one() {
    let behaviour = Behaviour { prefill_per_word: Duration::from_micros(400), ..GOOD };
    let (server, folder) = (StandIn::start(behaviour), tempfile::tempdir().unwrap());
    let arguments = ["prefix", "--prompt-tokens", "2000", "--requests", "3", "--turns", "4"];
    let found = results(&server.url, folder.path(), "p", &arguments);
    assert!(ratio(&found, "known prefix") > 3.0, "{}", found["ratios"]);
    let hits =
        |point: &Value| point["cached_tokens"].as_f64().unwrap() / point["prompt_tokens"].as_f64().unwrap();
    let pair = &found["sections"][0]["points"];
    assert!(hits(&pair[0]) < 0.1 && hits(&pair[1]) > 0.9);
    let turns = found["sections"][1]["points"].as_array().unwrap();
    assert!(turns.windows(2).all(|pair| hits(&pair[0]) < hits(&pair[1])), "answers are sent back");
    assert_eq!(found["warnings"], Value::Array(Vec::new()));
    let again = results(&server.url, folder.path(), "again", &arguments);
    assert!(again["warnings"].to_string().contains("it has seen this seed"));
}

#[test]
fn a_server_that_computes_prompts_in_one_piece_interferes() {
    let behaviour = Behaviour { prefill_per_word: Duration::from_micros(400), ..GOOD };
    let (server, folder) = (StandIn::start(behaviour), tempfile::tempdir().unwrap());
    let arguments = ["interference", "--prompt-tokens", "2000", "--requests", "2", "--duration", "1"];
    let streams = ["--streams", "2", "--stream-output-tokens", "50", "--stream-prompt-tokens", "8"];
    let found = results(&server.url, folder.path(), "i", &[&arguments[..], &streams].concat());
    assert!(ratio(&found, "during a long prompt, over alone") > 3.0, "{}", found["ratios"]);
    assert_eq!(found["sections"][0]["points"].as_array().unwrap().len(), 3);
}

#[test]
fn latency_is_measured_over_lengths_and_shown_again_from_the_file() {
    let behaviour = Behaviour { prefill_per_word: Duration::from_micros(400), ..GOOD };
    let (server, folder) = (StandIn::start(behaviour), tempfile::tempdir().unwrap());
    let arguments = ["latency", "--prompt-tokens", "50,800", "--output-tokens", "2,4", "--requests", "3"];
    let found = results(&server.url, folder.path(), "l", &arguments);
    let sections = found["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 2);
    for section in sections {
        let [short, long] = [0, 1].map(|point| section["points"][point]["ttft_ms"]["p50"].as_f64().unwrap());
        assert!(long > short, "{short} {long}");
    }
    let output = bench(&["report", folder.path().join("l.json").to_str().unwrap()]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("| 800 tokens") && table.contains("One client, answers of 4 tokens"), "{table}");
}

#[test]
fn the_engine_tells_what_memory_it_takes_and_steps_do_not_add_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("engine.json");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/kimi-nano");
    let what =
        ["engine", "--model", model, "--prompt", "32", "--batch", "2", "--steps", "600", "--repeat", "1"];
    let output = bench(&[&what[..], &["--busy", "1", "--json", json.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let [prompt, generation] = &figures.as_array().unwrap()[..] else { panic!("{figures}") };
    assert_eq!((&prompt["name"], &generation["name"]), (&"prompt 32".into(), &"generate × 2".into()));
    for figure in ["tokens_per_second", "of_limit", "beside_busy"] {
        assert!(generation[figure].as_f64().unwrap() > 0.0, "{figures}");
    }
    assert!(prompt["grown_bytes"].is_null(), "one step says nothing");
    if cfg!(target_os = "linux") {
        // The system counts pages roughly.
        assert!(generation["grown_bytes"].as_i64().unwrap() < 1 << 20, "{figures}");
        let kept = generation["file_and_cache_bytes"].as_u64().unwrap();
        let peak = generation["peak_bytes"].as_u64().unwrap();
        assert!((kept..kept + (256 << 20)).contains(&peak), "the memory's test is given back: {figures}");
    }
}

#[test]
fn two_servers_are_compared_by_ratios() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let slow = Behaviour { step: Duration::from_millis(8), ..GOOD };
    for (name, behaviour, seed) in [("fast", GOOD, "1"), ("slow", slow, "2")] {
        let server = StandIn::start(behaviour);
        let arguments = ["throughput", "--concurrency", "2", "--requests", "4", "--output-tokens", "30"];
        results(
            &server.url,
            folder.path(),
            name,
            &[&arguments[..], &["--label", name, "--seed", seed]].concat(),
        );
    }
    let page = file("both.html");
    let output = bench(&["compare", &file("fast.json"), &file("slow.json"), "--html", &page]);
    let table = String::from_utf8(output.stdout).unwrap();
    let row = table.lines().find(|line| line.contains("ITL p50")).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!((cells[1], cells[6]), ("2 clients", "worse"), "{table}");
    let [a, b, ratio] = [cells[3], cells[4], cells[5]].map(|cell| cell.parse::<f64>().unwrap());
    assert!((b / a / ratio - 1.0).abs() < 0.02 && ratio > 2.0, "{row}");
    assert!(table.contains("not the same load: seed 1 and 2"), "{table}");
    check_page(&fs::read_to_string(page).unwrap());
}

#[test]
fn requests_on_connections_that_the_server_closed_are_asked_again() {
    let server = StandIn::start(Behaviour { leaves: true, ..GOOD });
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["throughput", "--concurrency", "1", "--requests", "3", "--warmup", "0"];
    let found = results(&server.url, folder.path(), "again", &arguments);
    let point = &found["sections"][0]["points"][0];
    assert_eq!((&point["answers"], server.streams()), (&3.into(), 3), "{point}");
    assert!(server.left() >= 2, "{}", server.left());
}

#[test]
fn failed_requests_are_told_apart_and_fail_the_run() {
    let server = StandIn::start(Behaviour { fails: true, ..GOOD });
    let arguments = ["throughput", "--concurrency", "2", "--requests", "9", "--warmup", "0", "--base-url"];
    let output = bench(&[&arguments[..], &[server.url.as_str()]].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(table.contains("failed, 2 clients: 429 Too Many Requests: busy"), "{table}");
    assert!(table.contains("failed, 2 clients: the stream was cut: it ended without [DONE]"), "{table}");
    let row = table.lines().find(|line| line.starts_with("| 2 clients")).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!((cells[2], cells[3]), ("3", "6"), "{table}");
}

#[test]
fn the_time_limit_ends_a_server_that_never_answers() {
    let server = StandIn::start(Behaviour { hangs: true, ..GOOD });
    let arguments =
        ["throughput", "--concurrency", "2", "--requests", "5", "--warmup", "0", "--time-limit", "1"];
    let output = bench(&[&arguments[..], &["--base-url", &server.url]].concat());
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(table.contains("unfinished") && table.contains("| 2 clients |          5 |"), "{table}");
}

#[test]
fn what_goes_wrong_before_the_start_is_explained() {
    let server = StandIn::start(Behaviour { key: Some("right"), ..GOOD });
    let url = server.url.as_str();
    let said = |arguments: &[&str]| {
        let output = bench(&[&["throughput"], arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let nobody = said(&["--base-url", "http://127.0.0.1:9/v1"]);
    assert!(
        nobody.contains("no server answers at http://127.0.0.1:9/v1 (") && nobody.contains("--base-url"),
        "{nobody}"
    );
    let no_key = said(&["--base-url", url]);
    assert!(
        no_key.contains("wants an API key: give --api-key") && no_key.contains("no such key"),
        "{no_key}"
    );
    let wrong = said(&["--base-url", url, "--api-key", "wrong"]);
    assert!(wrong.contains("refuses this API key"), "{wrong}");
    let model = said(&["--base-url", url, "--api-key", "right", "--model", "other"]);
    assert!(model.contains("has no model \"other\"; give --model one of: stand-in"), "{model}");
}
