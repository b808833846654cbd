//! `clipood prompt`: nearest words of a learned context, and exchange of contexts with the CoOp repository.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use clipood_clip::checkpoint::torch_file::{read_state_dict, write_state_dict};
use clipood_clip::checkpoint::value::{Tensor, Value};
use clipood_clip::model::Model;
use clipood_clip::prompt::{CoopContext, PromptOptions, PromptState};
use clipood_core::files::read_file;
use clipood_core::{ClassToken, FingerprintBuilder, shown};
use clipood_pipeline::{PipelineError, PromptSet, nearest_tokens};

use super::arrays::write_parquet;
use super::class_list::read_class_list;
use super::models::ModelArgs;
use super::print;

/// Most bytes of a prompt set: 21,000 classes with 16 vectors of 1,024 values each have 1.4 GB.
const MAX_PROMPT: u64 = 4 << 30;

/// Options of `clipood prompt`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the tokens nearest to each vector of a context (Euclidean distance, as in the CoOp paper).
    Words(Words),
    /// Write a context in the format of the CoOp repository's `prompt_learner/model.pth.tar-N`, with `state_dict.ctx`.
    Export(Export),
    /// Make a prompt set from a context trained with the CoOp repository.
    Import(Import),
}

#[derive(clap::Args)]
struct Words {
    /// A prompt set: `prompts/FINGERPRINT/prompt.safetensors` of a store, or one that was imported.
    prompt: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens to list per vector.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// A Parquet file to write as well: `vector`, `rank`, `token`, `distance`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Export {
    /// A prompt set with a context.
    prompt: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// The context was trained with `class_specific = true`: it has the same number of vectors for each class.
    #[arg(long)]
    class_specific: bool,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Import {
    /// The CoOp repository's `prompt_learner/model.pth.tar-N`, written by torch.save in its zip or its older format.
    checkpoint: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// File with one class name per line, in the order of the labels; CoOp's `classnames.txt` as it is.
    #[arg(long)]
    classes: PathBuf,
    /// Position of the class name in the prompt: end, middle or front.
    #[arg(long, default_value = "end")]
    class_token: String,
    /// The prompt set to write; `zero-shot --prompt` and `score --text FILE:text` take it.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the chosen subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Words(args) => words(&args)?,
        What::Export(args) => export(&args)?,
        What::Import(args) => import(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a prompt set.
pub fn read(path: &Path) -> Result<PromptSet> {
    let name = path.display().to_string();
    let bytes =
        read_file(path, MAX_PROMPT).with_context(|| format!("cannot read the prompt {name}"))?;
    let set = PromptSet::from_bytes(&bytes, &name)?;
    let context = set.state.iter().flat_map(|state| &state.context);
    if set
        .class_rows()
        .iter()
        .chain(context)
        .any(|value| !value.is_finite())
    {
        bail!(
            "{name}: found values that are not finite in its features or its context, allowed: finite ones"
        );
    }
    Ok(set)
}

/// The normalised text features of the prompt set in `path` for a model of `dim` dimensions, `[classes, dim]`.
///
/// # Errors
/// A linear probe, which has none; features of another width.
pub fn text_features<'a>(
    set: &'a PromptSet,
    path: &Path,
    dim: usize,
) -> Result<&'a [f32], PipelineError> {
    let problem = match set.text.len() == set.classes.len() * dim {
        _ if set.probe.is_some() => "a linear probe, which has no text features".to_owned(),
        true => return Ok(&set.text),
        false => format!(
            "found text features of width {}, the model has {dim}: name the model that the prompts were trained with by --model",
            set.text.len() / set.classes.len().max(1)
        ),
    };
    Err(PipelineError::Usage(format!(
        "--prompt {}: {problem}",
        shown(path)
    )))
}

/// The context of a prompt set and the width of its vectors, which is the model's.
fn context_of(path: &Path, model: &Model) -> Result<(PromptSet, PromptState, usize)> {
    let set = read(path)?;
    let file = path.display();
    if set.probe.is_some() {
        bail!("{file} holds a linear probe, which has no context");
    }
    let Some(state) = set.state.clone() else {
        bail!("{file} holds hand-written prompts, which have no context");
    };
    let width = model.config.text.width;
    if state.context.is_empty() || state.context.len() % width != 0 {
        let found = state.context.len();
        bail!(
            "{file}: a context of {found} values is not of vectors {width} wide: another model's?"
        );
    }
    Ok((set, state, width))
}

fn words(args: &Words) -> Result<()> {
    let model = args.model.open()?;
    let (_, state, _) = context_of(&args.prompt, &model)?;
    let nearest = nearest_tokens(&model, &state.context, usize::from(args.top))?;
    let (mut vectors, mut ranks, mut tokens, mut distances) = (vec![], vec![], vec![], vec![]);
    let mut text = String::new();
    for (number, near) in nearest.into_iter().enumerate() {
        let mut named = Vec::new();
        for (rank, (token, distance)) in near.into_iter().enumerate() {
            named.push(format!("{token} {distance:.4}"));
            vectors.push(number as u32);
            ranks.push(rank as u32 + 1);
            tokens.push(token);
            distances.push(distance);
        }
        text += &format!("{number}: {}\n", named.join(", "));
    }
    print(&text)?;
    let Some(out) = &args.out else {
        return Ok(());
    };
    let schema = Arc::new(Schema::new(vec![
        Field::new("vector", DataType::UInt32, false),
        Field::new("rank", DataType::UInt32, false),
        Field::new("token", DataType::Utf8, false),
        Field::new("distance", DataType::Float32, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vectors)),
        Arc::new(UInt32Array::from(ranks)),
        Arc::new(StringArray::from(tokens)),
        Arc::new(Float32Array::from(distances)),
    ];
    write_parquet(
        out,
        &schema,
        [Ok(RecordBatch::try_new(schema.clone(), columns)?)],
    )
}

fn export(args: &Export) -> Result<()> {
    let model = args.model.open()?;
    let (set, state, width) = context_of(&args.prompt, &model)?;
    let rows = state.context.len() / width;
    let classes = set.classes.len();
    let shape = match args.class_specific {
        false => vec![rows, width],
        true if rows % classes == 0 => vec![classes, rows / classes, width],
        true => {
            let problem = format!(
                "--class-specific: {rows} vectors are not as many for each of {classes} classes"
            );
            return Err(PipelineError::Usage(problem).into());
        }
    };
    let text = |key: &str| Value::Text(Arc::from(key));
    let context = Value::Tensor(Tensor::floats(shape, state.context));
    let checkpoint = Value::Dict(vec![
        (
            text("state_dict"),
            Value::Dict(vec![(text("ctx"), context)]),
        ),
        (text("epoch"), Value::Int(state.epoch as i64)),
    ]);
    Ok(write_state_dict(&args.out, &checkpoint)?)
}

fn import(args: &Import) -> Result<()> {
    let file = args.checkpoint.display();
    let class_token = match args.class_token.as_str() {
        "end" => ClassToken::End,
        "middle" => ClassToken::Middle,
        "front" => ClassToken::Front,
        other => {
            let problem = format!("--class-token {other}: expected end, middle or front");
            return Err(PipelineError::Usage(problem).into());
        }
    };
    let classes = read_class_list(&args.classes)?.names;
    let model = args.model.open()?;
    let checkpoint = read_state_dict(&args.checkpoint)?;
    let width = model.config.text.width;
    let context = CoopContext::find(&checkpoint, width, classes.len())
        .map_err(|problem| anyhow!("{file}: {problem}"))?;
    let (values, n_ctx) = (&context.values, context.n_ctx);
    let options = PromptOptions {
        n_ctx,
        ctx_init: None,
        class_token,
        class_specific: context.class_specific,
    };
    let text = model.prompt_features(&classes, &options, values)?;
    // Finite vectors may still be so large that the text tower overflows.
    if let Some(position) = text.iter().position(|value| !value.is_finite()) {
        let class = &classes[position / model.config.embed_dim];
        bail!(
            "{file}: the text features of `{class}` are not finite: the values of its context are too large"
        );
    }
    let fingerprint = FingerprintBuilder::new("imported prompt")
        .field("model", &model.hash)
        .field("classes", &classes)
        .field("class_token", &class_token)
        .field("context", &values)
        .finish()?;
    let set = PromptSet {
        fingerprint: fingerprint.to_string(),
        text,
        classes,
        state: Some(PromptState {
            context: values.clone(),
            momentum: vec![0.0; values.len()],
            epoch: context.epoch,
            ..PromptState::default()
        }),
        probe: None,
        negatives: None,
    };
    std::fs::write(&args.out, set.to_bytes()?)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&format!(
        "{n_ctx} vectors{} for {} classes\n",
        if context.class_specific {
            " a class"
        } else {
            ""
        },
        set.classes.len()
    ))
}
