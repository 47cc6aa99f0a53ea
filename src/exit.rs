//! How a command fails: what failed, why, what to do, and the exit code. Nothing else prints errors.

use neap_sdk::{Problem, client::ClientError, error::exit};
use std::{error::Error, fmt, process::ExitCode};

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Whether `-o json` was asked for, so that scripts find the code in the output too.
    problem: Option<Box<Problem>>,
}

/// What a command returns.
pub type Outcome<T = ExitCode> = Result<T, Failure>;

impl Failure {
    /// A failure with its text.
    pub fn new(code: u8, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), causes: Vec::new(), hint: None, problem: None }
    }

    /// The operation failed.
    pub fn failed(what: impl Into<String>, cause: &dyn Error) -> Self {
        Self::new(exit::FAILED, what).because(cause)
    }

    /// The command line or a file it names is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(exit::USAGE, what)
    }

    /// Adds the chain of causes.
    pub fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes it to stderr; the process ends with the returned code.
    pub fn report(&self) -> ExitCode {
        anstream::eprint!("{self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\u{1b}[1;31merror\u{1b}[0m: {}", self.what)?;
        for cause in &self.causes {
            writeln!(f, "  because: {}", cause.replace('\n', "\n    "))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  \u{1b}[1mto do\u{1b}[0m: {hint}")?;
        }
        if let Some(problem) = &self.problem {
            writeln!(f, "  code: {}", problem.code)?;
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = error.exit_code();
        match error {
            ClientError::Problem(problem) => Self {
                code,
                what: problem.detail.clone(),
                causes: Vec::new(),
                hint: problem.hint.clone(),
                problem: Some(problem),
            },
            ClientError::Unreachable { .. } => Self::new(code, error.to_string())
                .because(error.source().unwrap_or(&error))
                .hint("start it with `neap up`, or name its folder with --data-dir or NEAP_DATA_DIR"),
            _ => Self::new(code, "the call to the server failed").because(&error),
        }
    }
}
