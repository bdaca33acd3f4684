//! Weights of another size, in other files, under other names.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fastclip_trainer::model::{CONFIG_FILE, Clip, ModelConfig, Pass, Pretrained, WEIGHTS_FILE};
use tch::{Device, Kind, Tensor};

use super::{Subject, TINY_RESNET, TINY_VIT, assert_close};

/// Our weights of one model in a model of another size: ours and open_clip's are the same there.
fn fits_alike(json: &'static str, other: String) {
    let mut subject = Subject::described(json, Kind::Float, 11);
    subject.json = other.leak();
    let expected = subject.ask("resized", &[]);
    let config = ModelConfig::from_json("test", subject.json).unwrap();
    let found = Clip::new(&config, Device::Cpu, 12);
    // Beside it lies the config of the first model, which is not that of this one.
    Pretrained::read(subject.folder.path().to_str().unwrap()).unwrap().load_into(&found).unwrap();
    assert_eq!(found.parameters().state().count(), expected.len());
    for parameter in found.parameters().state() {
        let name = &parameter.name;
        assert_close(name, &parameter.tensor.detach(), &expected[name], 1e-6);
    }
}

#[test]
fn positions_of_patches_are_interpolated_as_open_clip_does() {
    for size in ["48", "64", "24", "16"] {
        fits_alike(TINY_VIT, TINY_VIT.replacen("\"image_size\": 32", &format!("\"image_size\": {size}"), 1));
    }
}

#[test]
fn positions_of_tokens_are_interpolated_as_open_clip_does() {
    for length in ["20", "7"] {
        let longer = format!("\"context_length\": {length}");
        fits_alike(TINY_VIT, TINY_VIT.replacen("\"context_length\": 12", &longer, 1));
        fits_alike(TINY_RESNET, TINY_RESNET.replacen("\"context_length\": 12", &longer, 1));
    }
}

#[test]
fn a_model_for_the_sigmoid_loss_takes_weights_without_a_bias_as_open_clip_does() {
    fits_alike(TINY_VIT, TINY_VIT.replacen('{', "{\"init_logit_bias\": -10,", 1));
}

#[test]
fn weights_as_openai_keeps_them_are_read() {
    for json in [TINY_VIT, TINY_RESNET] {
        let subject = Subject::described(json, Kind::Float, 13);
        subject.ask("archived", &[]);
        let archive = subject.path("archive.safetensors");
        let found = Clip::from_pretrained(archive.to_str().unwrap(), None, Device::Cpu).unwrap();
        let (images, tokens) = subject.inputs(&[4], 1);
        tch::no_grad(|| {
            let image = |model: &Clip| model.encode_image(&images, Pass::Evaluation);
            assert_close("image", &image(&found), &image(&subject.model), 1e-2);
            assert_close("text", &found.encode_text(&tokens), &subject.model.encode_text(&tokens), 1e-2);
        });
    }
}

#[test]
fn weights_are_found_in_folders_of_every_kind() {
    let subject = Subject::described(TINY_VIT, Kind::Float, 14);
    let folder = subject.folder.path();
    subject.model.write_folder(folder).unwrap();
    let read = |path: &Path| Clip::from_pretrained(path.to_str().unwrap(), None, Device::Cpu);
    let same = |found: &Clip| {
        let of = |model: &Clip| model.parameters().get("visual.proj").unwrap().detach();
        assert!(of(found).equal(&of(&subject.model)));
    };
    same(&read(folder).unwrap());
    same(&read(&folder.join(WEIGHTS_FILE)).unwrap());
    fs::rename(folder.join(WEIGHTS_FILE), folder.join("model.safetensors")).unwrap();
    same(&read(folder).unwrap());

    fs::remove_file(folder.join(CONFIG_FILE)).unwrap();
    let error = read(folder).unwrap_err().to_string();
    assert!(error.contains("model.safetensors` has no `open_clip_config.json` beside it"), "{error}");
    let path = folder.to_str().unwrap();
    same(&Clip::from_pretrained(path, Some(subject.model.config()), Device::Cpu).unwrap());

    fs::rename(folder.join("model.safetensors"), folder.join("model.pt")).unwrap();
    let error = read(folder).unwrap_err().to_string();
    assert!(error.contains("there is no `open_clip_model.safetensors`"), "{error}");
    let error = read(&folder.join("model.pt")).unwrap_err().to_string();
    assert!(error.contains("is a pickle"), "{error}");
}

#[test]
fn weights_of_another_model_are_refused_whole() {
    let subject = Subject::described(TINY_VIT, Kind::Float, 15);
    subject.model.write_folder(subject.folder.path()).unwrap();
    let narrower = TINY_VIT.replace("\"width\": 32", "\"width\": 64");
    let other = Clip::new(&ModelConfig::from_json("test", &narrower).unwrap(), Device::Cpu, 16);
    let before: Vec<Tensor> = other.parameters().state().map(|p| p.tensor.copy()).collect();
    let pretrained = Pretrained::read(subject.folder.path().to_str().unwrap()).unwrap();
    let error = pretrained.load_into(&other).unwrap_err().to_string();
    assert!(error.contains("of another shape (`visual.class_embedding` [32], not [64]"), "{error}");
    for (parameter, before) in other.parameters().state().zip(&before) {
        assert!(parameter.tensor.equal(before), "{}", parameter.name);
    }
}

/// Serves a folder over HTTP until it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // "Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ..."
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn weights_come_from_a_web_server_too() {
    let subject = Subject::described(TINY_VIT, Kind::Float, 18);
    let folder = subject.folder.path().join("model");
    fs::create_dir(&folder).unwrap();
    subject.model.write_folder(&folder).unwrap();
    let server = Server::start(subject.folder.path());
    for place in ["model", "model/", "model/open_clip_model.safetensors"] {
        let url = format!("{}{place}", server.url);
        let found = Clip::from_pretrained(&url, None, Device::Cpu).unwrap();
        for (found, expected) in found.parameters().state().zip(subject.model.parameters().state()) {
            assert!(found.tensor.equal(&expected.tensor), "{} of {url}", found.name);
        }
    }
    let missing = format!("{}nothing", server.url);
    let error = Clip::from_pretrained(&missing, None, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains(&format!("in `{missing}`")), "{error}");
    fs::write(folder.join("open_clip_model.safetensors"), "no tensors").unwrap();
    let url = format!("{}model", server.url);
    let error = Clip::from_pretrained(&url, None, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("model/open_clip_model.safetensors` is no safetensors file"), "{error}");
}
