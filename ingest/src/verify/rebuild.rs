use fastclip_schemas::Manifest;
use serde_json::Value;

/// The command that makes a shard whole: by what made the dataset, as its manifest tells. A tar that is as it was made needs no more than
/// another index.
pub(super) fn command(manifest: &Manifest, location: &str, is_tar_whole: bool) -> String {
    let location = quoted(location);
    let ids = match manifest.source.get("ids").and_then(Value::as_str) {
        Some(ids) if ids != "dense" => format!(" --ids {ids}"),
        _ => String::new(),
    };
    let index = format!("ingest index {location}{ids} --overwrite");
    if is_tar_whole {
        return index;
    }
    let maker = ["download", "pack"].into_iter().find(|maker| manifest.source.contains_key(*maker));
    match (maker, manifest.source.get("input").and_then(Value::as_str)) {
        (Some(maker), Some(input)) => format!(
            "ingest {maker} --input {} --output {location} --overwrite, with the settings of the first time; or keep what is \
             whole of it: {index} --skip-damaged",
            quoted(input)
        ),
        _ => format!(
            "bring it from where it came, then: {index}; or keep what is whole of it: {index} --skip-damaged"
        ),
    }
}

/// An argument that a shell takes as it is.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(source: &[(&str, &str)]) -> Manifest {
        let source = source.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        Manifest::of_shards("test".to_owned(), Vec::new(), source.collect())
    }

    #[test]
    fn what_made_a_dataset_rebuilds_it() {
        let packed = manifest(&[("pack", ""), ("input", "a b.csv")]);
        assert!(
            command(&packed, "out", false)
                .starts_with("ingest pack --input 'a b.csv' --output out --overwrite")
        );
        assert_eq!(command(&packed, "out", true), "ingest index out --overwrite");
        let foreign = manifest(&[("ids", "json-key")]);
        assert!(
            command(&foreign, "s3://b/x", false)
                .ends_with("ingest index s3://b/x --ids json-key --overwrite --skip-damaged")
        );
    }

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        assert_eq!(["s3://b/x", "it's", ""].map(quoted), ["s3://b/x", r"'it'\''s'", "''"]);
    }
}
