//! Says hello over HTTP on `$PORT`: what a container needs to be a function. Keeps connections alive.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away ends its thread, not the server.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request_line) = lines.next() {
        let request_line = request_line?;
        for header in lines.by_ref() {
            if header?.is_empty() {
                break;
            }
        }
        let path = request_line.split(' ').nth(1).unwrap_or("/");
        let body = format!("Hello from a container, {path}\n");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
    Ok(())
}
