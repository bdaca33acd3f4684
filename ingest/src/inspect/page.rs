//! The page as a whole.

use fastclip_pages::{Page, count, data_url, escaped, measure, percent};
use serde_json::Value;

use super::chart::{Columns, bar};
use super::report::{InspectReport, bytes};
use super::specimen::Specimen;
use crate::tables::{HostCount, RowStats};

/// Characters of a caption on a card.
const MAX_CAPTION_CHARS: usize = 400;

/// Members of a card that are named.
const MAX_MEMBERS: usize = 8;

/// Hosts and failures in a table.
const NUM_LISTED: usize = 15;

/// Shards that could not be read and are named.
const NUM_UNREADABLE: usize = 10;

pub(super) fn to_html(report: &InspectReport) -> String {
    let mut body = header(report);
    body += &headlines(report);
    body += &notes(report);
    if !report.specimens.is_empty() {
        body += &format!("<section><h2>{} samples</h2>\n<div class=\"gallery\">\n", report.specimens.len());
        body += &report.specimens.iter().map(card).collect::<String>();
        body += "</div></section>\n";
    }
    body += &charts(report);
    body += &common_captions(report);
    if let Some(rows) = &report.rows {
        body += &what_became_of_rows(rows);
    }
    body += &facts(report);
    let title = format!("{} · dataset", report.location);
    Page { title: &title, style: include_str!("style.css"), body: &body }.to_html()
}

fn header(report: &InspectReport) -> String {
    format!(
        "<header><p class=\"brand\">FastCLIP dataset</p><h1>{}</h1><p class=\"lead\">{}</p></header>\n",
        escaped(&report.location),
        escaped(&report.what_was_read())
    )
}

fn headlines(report: &InspectReport) -> String {
    let InspectReport { manifest, samples, captions, .. } = report;
    let mut html = "<section class=\"headlines\">\n".to_owned();
    let mut headline = |name: &str, value: String, bar: String, note: String| {
        html += &format!(
            "<div class=\"headline\"><h3>{name}</h3><p class=\"value\">{}</p>{bar}<p class=\"note\">{}</p></div>\n",
            escaped(&value),
            escaped(&note)
        );
    };
    let num_shards = manifest.shards.len() as u64;
    let note = format!("in {} shards", count(num_shards));
    headline("Samples", count(manifest.num_samples), String::new(), note);
    let per_sample = bytes(report.num_bytes() / manifest.num_samples.max(1));
    let note = format!("{} a shard, {per_sample} a sample", bytes(report.num_bytes() / num_shards.max(1)));
    headline("Size", bytes(report.num_bytes()), String::new(), note);
    if let (Some(width), Some(height)) = (samples.width.mean(), samples.height.mean()) {
        let value = format!("{width:.0} × {height:.0}");
        let note =
            samples.image_bytes.mean().map(|mean| format!("pixels on average, {}", bytes(mean as u64)));
        headline("Images", value, String::new(), note.unwrap_or_default());
    }
    if let (Some(chars), Some(tokens)) = (samples.caption_chars.mean(), samples.caption_tokens.mean()) {
        let repeated = captions.repeated_share().map(|share| format!(", {} repeat another", percent(share)));
        let note = format!("characters on average, {tokens:.0} tokens{}", repeated.unwrap_or_default());
        headline("Captions", measure(chars), String::new(), note);
    }
    if let Some(rows) = &report.rows {
        let share = rows.num_successes as f64 / rows.num_rows.max(1) as f64;
        let note = format!("of {} rows in {} tables", count(rows.num_rows), count(rows.tables.len() as u64));
        headline("Rows that became samples", percent(share), bar(share, ""), note);
    }
    html + "</section>\n"
}

/// What a person should know before anything else.
fn notes(report: &InspectReport) -> String {
    let samples = &report.samples;
    let of_read = |number: u64| {
        format!("{} ({})", count(number), percent(number as f64 / samples.num_samples.max(1) as f64))
    };
    let mut notes: Vec<(&str, String)> = samples
        .faults()
        .map(|(number, what)| ("bad", format!("{} of the samples that were read {what}.", of_read(number))))
        .collect();
    let unreadable = report.specimens.iter().filter(|specimen| specimen.picture.is_err()).count();
    if unreadable > 0 {
        notes.push(("bad", format!("{unreadable} of the samples below have no image that can be shown.")));
    }
    for (shard, problem) in report.unreadable.iter().take(NUM_UNREADABLE) {
        notes.push(("bad", format!("{shard} cannot be read: {problem}")));
    }
    if report.unreadable.len() > NUM_UNREADABLE {
        notes.push((
            "bad",
            format!("{} more shards cannot be read.", report.unreadable.len() - NUM_UNREADABLE),
        ));
    }
    let cut = samples.num_cut_captions();
    if cut > 0 {
        notes.push(("", format!("{} captions have more than the 77 tokens that CLIP reads.", of_read(cut))));
    }
    if notes.is_empty() {
        return String::new();
    }
    let items = notes.iter().map(|(class, note)| format!("<li class=\"{class}\">{}</li>\n", escaped(note)));
    format!("<ul class=\"notes\">\n{}</ul>\n", items.collect::<String>())
}

fn card(specimen: &Specimen) -> String {
    let Specimen { id, key, shard, caption, members, picture } = specimen;
    let (image, size) = match picture {
        Ok(picture) => (
            format!(
                "<img loading=\"lazy\" src=\"{}\" alt=\"{}\">",
                data_url("image/jpeg", &picture.jpeg),
                escaped(&shortened(caption.as_deref().unwrap_or(key)))
            ),
            format!(" · {} × {} · {}", picture.width, picture.height, bytes(picture.num_bytes)),
        ),
        Err(problem) => (format!("<div class=\"none\">{}</div>", escaped(problem)), String::new()),
    };
    let caption = match caption {
        Some(caption) if !caption.is_empty() => {
            format!("<p class=\"caption\" dir=\"auto\">{}</p>", escaped(&shortened(caption)))
        }
        Some(_) => "<p class=\"caption none\">empty caption</p>".to_owned(),
        None => "<p class=\"caption none\">no caption</p>".to_owned(),
    };
    let mut names: Vec<_> = members.iter().take(MAX_MEMBERS).map(|(name, _)| shortened(name)).collect();
    if members.len() > MAX_MEMBERS {
        names.push("…".to_owned());
    }
    format!(
        "<article class=\"card\">\n<div class=\"picture\">{image}</div>\n{caption}\n\
         <p class=\"origin\"><code>{key}</code>{size}<br>id {id} in {shard} · {names}</p></article>\n",
        key = escaped(&shortened(key)),
        shard = escaped(shard),
        names = escaped(&names.join(", ")),
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CAPTION_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn charts(report: &InspectReport) -> String {
    let samples = &report.samples;
    let ratio = |hundredths: u64| format!("{}", hundredths as f64 / 100.0);
    let binary = |number: u64| match number {
        0..1024 => number.to_string(),
        1024..1_048_576 => format!("{}K", number >> 10),
        _ => format!("{}M", number >> 20),
    };
    let charts = [
        Columns {
            title: "Width",
            unit: "pixels",
            histogram: &samples.width,
            label: |value| value.to_string(),
        },
        Columns {
            title: "Height",
            unit: "pixels",
            histogram: &samples.height,
            label: |value| value.to_string(),
        },
        Columns { title: "Width ÷ height", unit: "", histogram: &samples.aspect_percent, label: ratio },
        Columns { title: "Image files", unit: "bytes", histogram: &samples.image_bytes, label: binary },
        Columns {
            title: "Captions",
            unit: "characters",
            histogram: &samples.caption_chars,
            label: |value| value.to_string(),
        },
        Columns {
            title: "Captions",
            unit: "CLIP tokens",
            histogram: &samples.caption_tokens,
            label: |value| value.to_string(),
        },
    ];
    let charts: String = charts.iter().map(Columns::to_html).collect();
    if charts.is_empty() {
        return charts;
    }
    format!(
        "<section><h2>Sizes</h2>\n<div class=\"charts\">\n{charts}</div>\n\
         <p class=\"note\">The number below a column is the largest value in it, the one above its share in percent.</p></section>\n"
    )
}

fn common_captions(report: &InspectReport) -> String {
    let captions = &report.captions;
    if captions.most_common.is_empty() {
        return String::new();
    }
    let rows = captions.most_common.iter().map(|(caption, number)| {
        let caption = if caption.is_empty() { "(empty)" } else { caption };
        (shortened(caption), *number, *number as f64 / captions.num_captions.max(1) as f64)
    });
    format!(
        "<section><h2>Most common captions</h2>\n{}</section>\n",
        list("Among the samples that were read", "caption", "share", rows, "")
    )
}

/// A table with a bar in each row.
fn list(
    title: &str,
    what: &str,
    measured: &str,
    rows: impl Iterator<Item = (String, u64, f64)>,
    class: &str,
) -> String {
    let rows: String = rows
        .map(|(name, number, share)| {
            format!(
                "<tr><td dir=\"auto\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"measure\">{}</td></tr>\n",
                escaped(&name),
                count(number),
                percent(share),
                bar(share, class)
            )
        })
        .collect();
    format!(
        "<table class=\"list\"><caption>{}</caption>\n<tr><th>{what}</th><th class=\"number\">number</th>\
         <th class=\"number\">{measured}</th><th class=\"measure\"></th></tr>\n{rows}</table>\n",
        escaped(title)
    )
}

fn what_became_of_rows(rows: &RowStats) -> String {
    let of_all = |number: u64| number as f64 / rows.num_rows.max(1) as f64;
    let mut html =
        "<section><h2>What became of the rows of the list</h2>\n<div class=\"tables\">\n".to_owned();
    let statuses = rows.statuses.iter().map(|(status, number)| (status.clone(), *number, of_all(*number)));
    html += &list("Outcome", "status", "of all rows", statuses, "");
    if !rows.failures.is_empty() {
        let failures = rows.failures.iter().take(NUM_LISTED);
        let failures = failures.map(|(failure, number)| (failure.clone(), *number, of_all(*number)));
        html += &list("Why rows failed", "failure", "of all rows", failures, "lost");
    }
    if !rows.hosts.is_empty() {
        let more = if rows.has_more_hosts { "more than " } else { "" };
        let title = format!("Hosts with most rows, of {more}{}", count(rows.num_hosts));
        let hosts = rows.hosts.iter().take(NUM_LISTED).map(|HostCount { host, num_rows, num_successes }| {
            (host.clone(), *num_rows, *num_successes as f64 / (*num_rows).max(1) as f64)
        });
        html += &list(&title, "host", "succeed", hosts, "");
    }
    html += &success_of_tables(rows);
    html + "</div></section>\n"
}

fn success_of_tables(rows: &RowStats) -> String {
    if rows.tables.len() < 2 {
        return String::new();
    }
    let columns: String = rows
        .tables
        .iter()
        .map(|table| {
            let share = table.num_successes as f64 / table.num_rows.max(1) as f64;
            format!(
                "<span style=\"height:{:.1}%\" title=\"{}: {} of {} rows\"></span>",
                (100.0 * share).max(0.5),
                escaped(&table.name),
                percent(share),
                count(table.num_rows)
            )
        })
        .collect();
    let share = |pick: fn(f64, f64) -> f64, start: f64| {
        let shares =
            rows.tables.iter().map(|table| table.num_successes as f64 / table.num_rows.max(1) as f64);
        percent(shares.fold(start, pick))
    };
    format!(
        "<figure class=\"chart\"><figcaption><h3>Success of each shard</h3><span class=\"summary\">{} shards, from {} to {}</span>\
         </figcaption><div class=\"strip\">{columns}</div></figure>\n",
        count(rows.tables.len() as u64),
        share(f64::min, 1.0),
        share(f64::max, 0.0)
    )
}

fn facts(report: &InspectReport) -> String {
    let manifest = &report.manifest;
    let counts = || manifest.shards.iter().map(|shard| u64::from(shard.num_samples));
    let between = |least: Option<u64>, most: Option<u64>| match (least, most) {
        (Some(least), Some(most)) if least == most => count(least),
        (Some(least), Some(most)) => format!("{} to {}", count(least), count(most)),
        _ => "none".to_owned(),
    };
    let mut facts = vec![
        ("Location", report.location.clone()),
        ("Written by", manifest.created_by.clone()),
        ("Samples a shard", between(counts().min(), counts().max())),
        ("Sample ids", format!("0 to {}", count(manifest.num_sample_ids.saturating_sub(1)))),
        ("Read for this page", report.what_was_read()),
    ];
    if let Some(Value::String(input)) = manifest.source.get("input") {
        facts.push(("Input", input.clone()));
    }
    let rows: String = facts
        .iter()
        .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(value)))
        .collect();
    let mut html = format!("<section><h2>The dataset</h2>\n<table class=\"facts\">\n{rows}</table>\n");
    if !manifest.source.is_empty() {
        let source = serde_json::to_string_pretty(&manifest.source).unwrap_or_default();
        html += &format!(
            "<details><summary>What the manifest says about the source</summary><pre>{}</pre></details>\n",
            escaped(&source)
        );
    }
    html += "<details><summary>How to read this page</summary><p>Pictures and figures of samples are those of the samples that \
             were read; counts of samples, shards and bytes are those of the manifest. Neighbours in a shard often come from \
             neighbouring rows of the list, and may resemble each other. Tokens are counted as CLIP cuts captions up, with start \
             and end. Captions are compared by their first 300 characters. Of JPEGs, only headers are read, except for the pictures \
             that are shown: <code>ingest verify --decode all</code> decodes every image.</p></details>\n";
    html + "</section>\n"
}
