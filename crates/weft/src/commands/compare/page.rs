//! The report's page: one file that needs nothing else, readable on a phone, on paper, by day and by night.

/// A section: the claim that it tests, figures and tables, and what the measurement says.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) claim: &'static str,
    /// HTML.
    pub(super) body: String,
    pub(super) verdict: String,
    /// Its numbers.
    pub(super) files: Vec<Csv>,
}

/// A file of numbers beside the page: NAME.csv.
pub(super) struct Csv {
    pub(super) name: &'static str,
    pub(super) heads: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #d4d4d8; --quiet: #52525b; --page: #fff; --ink: #18181b; --card: #f4f4f5 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3f3f46; --quiet: #a1a1aa; --page: #18181b; --ink: #f4f4f5; --card: #27272a }
}
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 54rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif }
h1 { line-height: 1.2 } h2 { margin: 3rem 0 .5rem; line-height: 1.25 }
.claim { color: var(--quiet); font-style: italic; margin: 0 0 1rem }
.verdict { border-left: 4px solid #2563eb; padding: .25rem 0 .25rem 1rem; margin: 1rem 0 }
.files { color: var(--quiet); font-size: .9rem }
.wide { overflow-x: auto; margin: 1rem 0 }
svg { display: block }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums }
th, td { padding: 5px .6rem; line-height: 24px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { padding-left: 0; text-align: left; position: sticky; left: 0; background: var(--page) }
pre { background: var(--card); padding: .75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px }
footer { margin-top: 4rem; color: var(--quiet); font-size: .9rem }
@media print { body { max-width: none } svg { max-width: 100%; height: auto } h2, figure, table, svg { break-inside: avoid } }
";

/// The whole page.
pub(super) fn page(title: &str, lead: &str, sections: &[Section], notes: &str) -> String {
    let sections: String = sections
        .iter()
        .map(|section| {
            let files: Vec<String> = section.files.iter().map(|file| format!("{}.csv", file.name)).collect();
            format!(
                "<section>\n<h2>{}</h2>\n<p class=\"claim\">{}</p>\n{}\n<p class=\"verdict\">{}</p>\n\
                 <p class=\"files\">{}</p>\n</section>\n",
                section.title,
                escaped(section.claim),
                section.body,
                escaped(&section.verdict),
                files.join(", "),
            )
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{lead}</p>\n{sections}\
         <footer>{notes}</footer>\n</body>\n</html>\n",
        title = escaped(title),
        lead = escaped(lead),
        notes = escaped(notes),
    )
}

/// A table; the first column is text, the others are numbers.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let row = |cells: Vec<String>| format!("<tr>{}</tr>\n", cells.concat());
    let head = row(heads.iter().map(|head| format!("<th>{}</th>", escaped(head))).collect());
    let rows: String = rows
        .iter()
        .map(|cells| row(cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect()))
        .collect();
    format!("<div class=\"wide\"><table>\n<thead>{head}</thead>\n<tbody>{rows}</tbody>\n</table></div>\n")
}

impl Csv {
    /// The file's text.
    pub(super) fn text(&self) -> String {
        let field = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let mut text = line(self.heads.iter().map(|head| field(head)).collect());
        text.extend(self.rows.iter().map(|cells| line(cells.iter().map(|cell| field(cell)).collect())));
        text
    }
}

/// A picture, wider than a phone: there it is moved, not shrunk.
pub(super) fn figure(svg: &str) -> String {
    format!("<div class=\"wide\">{svg}</div>\n")
}

/// Text as HTML; control characters, which a model may write, become boxes.
pub(super) fn escaped(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() && letter != '\n' { '□' } else { letter };
    let text: String = text.chars().map(shown).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
