use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

/// Let a language model continue a text
///
/// Token by token; each piece is printed as soon as it is whole. Without a prompt, text on standard input is continued;
/// from a terminal, the model begins with a new line.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The model: its folder, or the run that trained it
    pub(crate) model: PathBuf,

    /// The text to continue
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file", help_heading = "Text")]
    pub(crate) prompt: Option<String>,
    /// A file with the text to continue
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Print only what is new, not the prompt before it
    #[arg(long, help_heading = "Text")]
    pub(crate) only_new: bool,
    /// Where to save the model's state after the text, for --load-state: a small file, unless the model is a Transformer
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    pub(crate) state: Option<PathBuf>,
    /// Go on where a text stopped, without reading it again; a prompt is what follows it
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    pub(crate) load_state: Option<PathBuf>,
    /// The most tokens to generate; fewer if the model ends its text or its positions are used up
    #[arg(long, value_name = "TOKENS", default_value_t = 500, help_heading = "Text")]
    pub(crate) max_tokens: usize,

    /// Divides the logits: below 1 the likely becomes likelier, above 1 the unlikely; 0 always takes the most likely
    /// token
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "NUMBER",
        default_value_t = 0.8,
        help_heading = "Sampling"
    )]
    pub(crate) temperature: f32,
    /// Draw from the K most likely tokens only; Fan et al. 2018, arXiv 1805.04833
    #[arg(long, value_name = "K", help_heading = "Sampling")]
    pub(crate) top_k: Option<usize>,
    /// Draw from the fewest likely tokens that have this much probability together; Holtzman et al. 2019,
    /// arXiv 1904.09751
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Sampling")]
    pub(crate) top_p: Option<f32>,
    /// Draw from the tokens that have at least this share of the most likely one's probability; Nguyen et al. 2024,
    /// arXiv 2407.01082
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Sampling")]
    pub(crate) min_p: Option<f32>,
    /// Above 1: tokens that the text has are made less likely; Keskar et al. 2019, arXiv 1909.05858
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "NUMBER",
        default_value_t = 1.0,
        help_heading = "Sampling"
    )]
    pub(crate) repetition_penalty: f32,
    /// The same seed gives the same text [default: a new one each time, named on standard error]
    #[arg(long, value_name = "NUMBER", help_heading = "Sampling")]
    pub(crate) seed: Option<u64>,

    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
