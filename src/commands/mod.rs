//! The commands, a file each. A command reads its arguments, calls the server or starts one, and prints.

mod functions;
pub mod invoke;
mod keys;
mod package;
mod progress;
mod push;
mod up;
mod usage;
mod verify;

use crate::{
    cli::{Cli, Command},
    demo,
    exit::{Failure, Outcome},
    output,
};
use clap::CommandFactory as _;
use std::process::ExitCode;

/// Runs the command of `cli`.
pub fn run(cli: Cli) -> Outcome {
    let (server, format) = (cli.server, cli.output);
    match cli.command {
        Command::Up(args) => up::run(&args, &server),
        Command::Demo(args) => demo::run(&args),
        Command::Completion { shell } => completion(shell),
        command => client_runtime()?.block_on(async {
            match command {
                Command::Push(args) => push::run(*args, &server, format).await,
                Command::Ls => functions::list(&server, format).await,
                Command::Get(args) => functions::get(&args.name, &server, format).await,
                Command::Rollback(args) => functions::rollback(&args, &server, format).await,
                Command::Traffic(args) => functions::traffic(&args, &server, format).await,
                Command::Delete(args) => functions::delete(&args.name, &server).await,
                Command::Logs(args) => functions::logs(&args, &server, format).await,
                Command::Invoke(args) => invoke::run(&args, &server).await,
                Command::Usage(args) => usage::run(&args, &server, format).await,
                Command::Key(command) => keys::run(command, &server, format).await,
                Command::Verify(args) => verify::run(&args, &server, format).await,
                Command::Up(_) | Command::Demo(_) | Command::Completion { .. } => Ok(ExitCode::SUCCESS),
            }
        }),
    }
}

fn client_runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("no I/O is possible", &error))
}

fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "neap", &mut script);
    output::bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
