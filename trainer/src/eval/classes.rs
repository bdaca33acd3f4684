//! Class names and prompt templates, and the classifier that they make.

use fastclip_loader::Tokenizer;
use fastclip_schemas::zero_shot::{CLASS_NAMES_FILE, CLASS_PLACEHOLDER, TEMPLATES_FILE};
use fastclip_shards::Dataset;
use tch::{Kind, Tensor};

use super::gather::{gather_rows, share};
use super::{EncodeOptions, Encoder, EvalError};
use crate::distributed::Communicator;

/// The classes of a dataset and how to speak of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClassPrompts {
    pub(super) names: Vec<String>,
    templates: Vec<String>,
}

impl ClassPrompts {
    /// Reads the files beside a dataset. A dataset without them has no classes.
    pub(super) async fn read(dataset: &Dataset) -> Result<Option<Self>, EvalError> {
        let names = lines(dataset, CLASS_NAMES_FILE).await?;
        let templates = lines(dataset, TEMPLATES_FILE).await?;
        match (names, templates) {
            (None, None) => Ok(None),
            (Some(names), Some(templates)) => Self::check(names, templates).map(Some),
            (None, Some(_)) => Err(side_file(CLASS_NAMES_FILE, "is missing, the templates are there")),
            (Some(_), None) => Err(side_file(TEMPLATES_FILE, "is missing, the class names are there")),
        }
    }

    fn check(names: Vec<String>, templates: Vec<String>) -> Result<Self, EvalError> {
        for (file, lines) in [(CLASS_NAMES_FILE, &names), (TEMPLATES_FILE, &templates)] {
            if lines.is_empty() {
                return Err(side_file(file, "is empty"));
            }
            if let Some(line) = lines.iter().position(String::is_empty) {
                return Err(side_file(file, format!("has nothing on line {}", line + 1)));
            }
        }
        match templates.iter().position(|template| !template.contains(CLASS_PLACEHOLDER)) {
            Some(line) => {
                Err(side_file(TEMPLATES_FILE, format!("has no `{CLASS_PLACEHOLDER}` on line {}", line + 1)))
            }
            None => Ok(Self { names, templates }),
        }
    }

    /// Makes one unit row per class: the mean of its prompts' unit rows, scaled back to length one.
    ///
    /// Classes are shared out over the ranks. They are encoded in groups that begin at the same classes for every
    /// number of ranks, so that the rows come out of equally shaped batches.
    pub(super) fn encode(
        &self,
        model: &dyn Encoder,
        comm: &dyn Communicator,
        options: &EncodeOptions,
    ) -> Result<Tensor, EvalError> {
        let tokenizer = Tokenizer::clip();
        let per_group = (options.batch_size.get() / self.templates.len()).max(1);
        let groups: Vec<&[String]> = self.names.chunks(per_group).collect();
        let (start, end) = share(comm, groups.len() as i64);
        // With more ranks than groups, some take part in the collectives without a row.
        let mut rows = vec![Tensor::zeros([0, model.dim()], (Kind::Float, model.device()))];
        for names in &groups[start as usize..end as usize] {
            let prompts: Vec<String> = names.iter().flat_map(|name| self.prompts(name)).collect();
            let features = encode_prompts(model, &tokenizer, &prompts, options); // [classes × templates, dim]
            let shape = [names.len() as i64, self.templates.len() as i64, features.size()[1]];
            let means = unit_rows(&features).reshape(shape).mean_dim(1, false, Kind::Float);
            rows.push(unit_rows(&means));
        }
        gather_rows(comm, &Tensor::cat(&rows, 0))
    }

    fn prompts(&self, name: &str) -> impl Iterator<Item = String> {
        self.templates.iter().map(move |template| template.replace(CLASS_PLACEHOLDER, name))
    }
}

fn encode_prompts(
    model: &dyn Encoder,
    tokenizer: &Tokenizer,
    prompts: &[String],
    options: &EncodeOptions,
) -> Tensor {
    let context = options.context_length;
    let batches = prompts.chunks(options.batch_size.get()).map(|prompts| {
        let mut tokens = vec![0; prompts.len() * context];
        for (prompt, row) in prompts.iter().zip(tokens.chunks_exact_mut(context)) {
            tokenizer.encode_into(prompt, row);
        }
        let tokens = Tensor::from_slice(&tokens).reshape([prompts.len() as i64, context as i64]);
        model.encode_text(&tokens.to_device(model.device())).to_kind(Kind::Float)
    });
    Tensor::cat(&batches.collect::<Vec<_>>(), 0)
}

fn unit_rows(rows: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2, [1], true).clamp_min(1e-12)
}

async fn lines(dataset: &Dataset, file: &'static str) -> Result<Option<Vec<String>>, EvalError> {
    let Some(bytes) = dataset.side_file(file).await? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| side_file(file, format!("is not UTF-8 at byte {}", error.valid_up_to())))?;
    Ok(Some(text.lines().map(|line| line.trim().to_owned()).collect()))
}

fn side_file(file: &'static str, reason: impl Into<String>) -> EvalError {
    EvalError::SideFile { file, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn prompts_put_the_class_where_the_template_says() {
        let classes =
            ClassPrompts::check(owned(&["red ball"]), owned(&["a photo of a {c}", "{c}."])).unwrap();
        assert_eq!(classes.prompts("red ball").collect::<Vec<_>>(), ["a photo of a red ball", "red ball."]);
    }

    #[test]
    fn a_template_without_a_place_for_the_class_is_refused_with_its_line() {
        let error = ClassPrompts::check(owned(&["ball"]), owned(&["a {c}", "a photo"])).unwrap_err();
        assert_eq!(error.to_string(), "`zeroshot_classification_templates.txt` has no `{c}` on line 2");
    }

    #[test]
    fn an_empty_class_name_is_refused_because_it_would_shift_the_numbers_of_the_others() {
        let error = ClassPrompts::check(owned(&["ball", "", "cube"]), owned(&["{c}"])).unwrap_err();
        assert_eq!(error.to_string(), "`classnames.txt` has nothing on line 2");
    }
}
