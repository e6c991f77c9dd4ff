// SPDX-License-Identifier: Apache-2.0
//! A chat template as transformers' `apply_chat_template` runs it, within bounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use chrono::DateTime;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::budget::{self, Budget, Stopped};
use super::{python, Code, TextError};

const NAME: &str = "chat";
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 32 << 20;
const STEPS_BASE: u64 = 200_000;
const STEPS_PER_MESSAGE: u64 = 10_000;
const STEPS_MAX: u64 = 20_000_000;
const MEMORY_BASE: usize = 64 << 20;
const MEMORY_PER_INPUT_BYTE: usize = 16;
const MEMORY_TOTAL_FACTOR: usize = 16;
const MAX_DETAIL_CHARS: usize = 200;

pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// Output with an upper bound: what passes it is an error of the write.
struct Output {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_OUTPUT_BYTES - self.bytes.len() {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Transformers marks assistant text with `{% generation %}` blocks, which print their body. A condition
/// that always holds does the same, and keeps the tags' white space control as written.
fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let inner = tag[2..].trim_start_matches(['-', '+']);
        let word = inner.trim_start();
        let replacement = [("generation", "if true"), ("endgeneration", "endif")]
            .into_iter()
            .find_map(|(name, new)| word.strip_prefix(name).map(|after| (new, after)))
            .filter(|(_, after)| {
                after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
            });
        match replacement {
            Some((new, after)) => {
                out.push_str(&tag[..tag.len() - word.len()]);
                out.push_str(new);
                // A name must not run into what follows it.
                out.push(' ');
                rest = after;
            }
            None => {
                out.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, python::str(&message)))
}

/// `unix_seconds` is what the template takes for now, in UTC: neither the clock nor the time zone of the
/// machine may change the tokens.
fn strftime_now(unix_seconds: i64, format: &str) -> Result<String, Error> {
    let failed = |what: &'static str| Error::new(ErrorKind::InvalidOperation, what);
    let now = DateTime::from_timestamp(unix_seconds, 0)
        .ok_or_else(|| failed("strftime_now: the time is out of range"))?;
    let mut out = String::new();
    // Display of a wrong format is an error of write!, where to_string() would panic.
    write!(out, "{}", now.format(format)).map_err(|_| failed("strftime_now: unknown format"))?;
    Ok(out)
}

/// What all templates share. It is made once and outside of any budget, and so is all that the engine keeps
/// in variables of the process: a run that is stopped gives back what it had allocated.
fn common_environment() -> &'static Environment<'static> {
    static COMMON: OnceLock<Environment<'static>> = OnceLock::new();
    COMMON.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment
            .set_formatter(|out, _, value| out.write_str(&python::str(value)).map_err(Error::from));
        environment.set_fuel(Some(STEPS_MAX));
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", |value: Value| python::str(&value));
        environment.add_filter("title", python::title);
        environment.add_function("raise_exception", raise_exception);
        for environment in [&environment, &Environment::new()] {
            let _ = environment.render_str("{{ 7 }}{{ 7 ~ 7 }}{{ [7] }}{{ [7, 7] | join }}", ());
        }
        environment
    })
}

fn stopped(stopped: Stopped) -> TextError {
    match stopped {
        Stopped::OverBudget => TextError::new(Code::Limit, "it needs too much memory"),
        Stopped::Panicked => TextError::new(Code::Panic, "internal error in the template engine"),
        Stopped::NoThread => TextError::new(Code::Busy, "no thread could be started to run it"),
    }
}

fn budget_for(input_bytes: usize) -> Budget {
    let live_bytes = MEMORY_BASE.saturating_add(MEMORY_PER_INPUT_BYTE.saturating_mul(input_bytes));
    Budget { live_bytes, total_bytes: live_bytes.saturating_mul(MEMORY_TOTAL_FACTOR) }
}

fn detail(error: &Error) -> String {
    let mut text: String =
        error.detail().unwrap_or_default().chars().take(MAX_DETAIL_CHARS).collect();
    if text.is_empty() {
        text = error.kind().to_string();
    }
    match error.line() {
        Some(line) => format!("line {line}: {text}"),
        None => text,
    }
}

impl ChatTemplate {
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TextError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TextError::new(Code::Invalid, "it is longer than 1 MiB"));
        }
        let common = common_environment();
        // The engine computes constant expressions as it compiles, so that needs the budget too.
        let compiled = budget::run(budget_for(source.len()), || {
            let mut environment = common.clone();
            environment
                .add_template_owned(NAME, replace_generation_tags(source))
                .map_err(|error| TextError::new(Code::Invalid, detail(&error)))?;
            Ok(environment)
        });
        let environment = compiled.map_err(stopped)??;
        Ok(ChatTemplate { environment, bos: bos.into(), eos: eos.into() })
    }

    pub fn render(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        unix_seconds: i64,
    ) -> Result<String, TextError> {
        let input_bytes: usize =
            messages.iter().map(|(role, content)| role.len() + content.len()).sum();
        let steps = STEPS_BASE
            .saturating_add(STEPS_PER_MESSAGE.saturating_mul(messages.len() as u64))
            .min(STEPS_MAX);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        environment
            .add_function("strftime_now", move |format: &str| strftime_now(unix_seconds, format));
        let rendered = budget::run(budget_for(input_bytes), || {
            let mut output = Output { bytes: Vec::new(), full: false };
            environment
                .get_template(NAME)
                .and_then(|template| {
                    let variables = self.variables(messages, add_generation_prompt);
                    template.render_captured_to(variables, &mut output).map(|_| ())
                })
                .map_err(|error| {
                    if error.kind() == ErrorKind::OutOfFuel || output.full {
                        TextError::new(Code::Limit, "it takes too many steps or prints too much")
                    } else {
                        TextError::new(Code::Failed, detail(&error))
                    }
                })?;
            Ok(output.bytes)
        });
        String::from_utf8(rendered.map_err(stopped)??)
            .map_err(|_| TextError::new(Code::Failed, "its output is not UTF-8"))
    }

    fn variables(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Value {
        let messages: Value = messages
            .iter()
            .map(|(role, content)| {
                // In this order, which a template that prints a message shows.
                Value::from_iter([("role", Value::from(*role)), ("content", Value::from(*content))])
            })
            .collect();
        let mut variables = BTreeMap::from([
            ("messages", messages),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ]);
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if !token.is_empty() {
                variables.insert(name, Value::from(token.as_str()));
            }
        }
        Value::from_iter(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Code> {
        let chat = ChatTemplate::new(source, "<s>", "").map_err(|error| error.code)?;
        chat.render(&[("user", "hi")], false, 0).map_err(|error| error.code)
    }

    #[test]
    fn generation_tags_keep_their_white_space() {
        assert_eq!(
            replace_generation_tags("a {%- generation -%} b {% endgeneration %}{% generation_x %}"),
            "a {%- if true  -%} b {% endif  %}{% generation_x %}"
        );
    }

    #[test]
    fn prints_as_python_does() {
        assert_eq!(
            render("{{ true }} {{ none }} {{ 1.0 }} {{ ['a', 1] }} {{ messages[0] }} {{ x }}")
                .unwrap(),
            "True None 1.0 ['a', 1] {'role': 'user', 'content': 'hi'} "
        );
        assert_eq!(
            render("{{ messages | tojson }}").unwrap(),
            r#"[{"role": "user", "content": "hi"}]"#
        );
        assert_eq!(
            render("{{ {'b': [], 'a': 'é'} | tojson(indent=2, sort_keys=true) }}").unwrap(),
            "{\n  \"a\": \"é\",\n  \"b\": []\n}"
        );
    }

    #[test]
    fn bounds_hold() {
        for hostile in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "{% for i in range(20000) %}{{ 'x' * 10000 }}{% endfor %}",
            "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        ] {
            assert!(matches!(render(hostile), Err(Code::Limit | Code::Failed)), "{hostile}");
        }
    }
    #[test]
    fn compiling_is_bounded() {
        // Constants that are computed while compiling: one that is too large, many that are so together, and
        // much work in all.
        for hostile in [
            "{{ 'x' * 100000000 }}".to_string(),
            "{{ 'x' * 10000000 }}".repeat(50),
            "{{ 'x' * 50000000 == 'y' * 50000000 }}".repeat(50),
        ] {
            assert_eq!(ChatTemplate::new(&hostile, "", "").err().unwrap().code, Code::Limit);
        }
        assert_eq!(render("{{ 'x' * 3 }}").unwrap(), "xxx");
    }

    #[test]
    fn now_is_what_the_caller_says() {
        let chat = ChatTemplate::new("{{ strftime_now('%d %b %Y %H:%M %Z') }}", "", "").unwrap();
        assert_eq!(chat.render(&[], false, 1_721_952_000).unwrap(), "26 Jul 2024 00:00 UTC");
        assert_eq!(chat.render(&[], false, 60).unwrap(), "01 Jan 1970 00:01 UTC");
        assert_eq!(chat.render(&[], false, i64::MAX).unwrap_err().code, Code::Failed);
    }

    #[test]
    fn nothing_allocated_in_a_run_outlives_it() {
        // Such a block would be freed under the feet of whoever has it, were the run stopped.
        // At run time: clones share compiled tests.
        let folder =
            format!("{}/../text/testdata/templates", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        for file in std::fs::read_dir(folder).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let common = common_environment();
            let (result, left) = budget::run_and_count(budget_for(source.len()), || {
                let mut environment = common.clone();
                environment.add_template_owned(NAME, replace_generation_tags(&source)).is_ok()
            });
            assert_eq!((result, left), (Ok(true), 0));

            let chat = ChatTemplate::new(&source, "<s>", "</s>").unwrap();
            let (result, left) = budget::run_and_count(budget_for(0), || {
                let variables = chat.variables(&[("user", "1"), ("assistant", "2")], true);
                chat.environment.get_template(NAME).unwrap().render(variables).is_ok()
            });
            assert_eq!((result, left), (Ok(true), 0));
        }
    }
}
