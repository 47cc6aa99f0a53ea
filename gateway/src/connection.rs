//! One client connection, from accept to close: hyper speaks, this file holds the watch and ends it in time.
//! Knows nothing of what is asked.

use crate::{
    forward::Client,
    request::{self, Core},
    screen::Screen,
    watch::Watch,
};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use neap_sdk::limits;
use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, sleep_until},
};

/// What the parts of one connection share. They all live on its core.
pub(crate) struct Connection {
    /// The address at which the client reached us.
    pub(crate) local: IpAddr,
    /// Who it is.
    pub(crate) client: Client,
    watch: Cell<Watch>,
    has_unread_body: Cell<bool>,
}

impl Connection {
    /// A request has begun.
    pub(crate) fn on_request(&self, has_body: bool) {
        self.update(Watch::on_request);
        self.has_unread_body.set(has_body);
    }

    /// A request's body was read to its end.
    pub(crate) fn on_body_read(&self) {
        self.has_unread_body.set(false);
    }

    /// An answer has ended.
    pub(crate) fn on_answered(&self, now: Instant) {
        self.update(|watch| watch.on_answered(|| now));
    }

    fn update(&self, change: impl FnOnce(&mut Watch)) {
        let mut watch = self.watch.get();
        change(&mut watch);
        self.watch.set(watch);
    }
}

/// Serves one connection until it ends, its client is too slow, or the gateway has drained it.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, peer: SocketAddr) {
    let now = Instant::now();
    // Answers are written whole; waiting to fill a packet only adds latency.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let shared = Rc::new(Connection {
        local: local.ip(),
        client: Client::new(peer.ip(), core.settings().trust_forwarded),
        watch: Cell::new(Watch::new(now)),
        has_unread_body: Cell::new(false),
    });
    let io = TokioIo::new(Io {
        stream,
        shared: Rc::clone(&shared),
        screen: Screen::new(),
        closing: Closing::Open,
    });
    let service = service_fn({
        let (core, shared) = (Rc::clone(&core), Rc::clone(&shared));
        move |request| request::handle(Rc::clone(&core), Rc::clone(&shared), request)
    });
    let mut connection = pin!(core.http().serve_connection(io, service));
    let patience = core.patience();
    let mut timer = pin!(sleep_until((now + patience.head).into()));
    let mut draining = pin!(core.draining().cancelled());
    let mut is_draining = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error = &*error, "a connection failed");
                }
                return;
            }
            () = draining.as_mut(), if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = timer.as_mut() => match shared.watch.get().check(Instant::now(), patience) {
                Some(next) => timer.as_mut().reset(next.into()),
                None => {
                    tracing::debug!(%peer, "a connection was too slow or idle and is closed");
                    return;
                }
            },
        }
    }
}

/// A socket that tells the watch what happens on it, and keeps what is ambiguous from hyper.
struct Io {
    stream: TcpStream,
    shared: Rc<Connection>,
    screen: Screen,
    closing: Closing,
}

/// Closing a socket with bytes unread makes the kernel send a reset, which destroys what the client has not read
/// yet: the very answer that says why its body was not read. So what still comes is read and dropped, for a while.
enum Closing {
    Open,
    Lingering { left_bytes: u64, until: Pin<Box<Sleep>> },
    Closed,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, shared, screen, .. } = &mut *self;
        if screen.is_refused() {
            buf.put_slice(screen.take_ending(buf.remaining()));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            shared.update(|watch| watch.on_read(read, Instant::now));
        }
        if let Some(passed) = screen.pass(read) {
            buf.set_filled(before + passed);
            buf.put_slice(screen.take_ending(buf.remaining()));
            shared.has_unread_body.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.shared.update(|watch| watch.on_write(Instant::now));
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.shared.update(|watch| watch.on_write(Instant::now));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, shared, closing, .. } = &mut *self;
        loop {
            match closing {
                Closing::Open => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                    *closing = match shared.has_unread_body.get() {
                        true => Closing::Lingering {
                            left_bytes: limits::LINGER_BYTES_MAX,
                            until: Box::pin(sleep(Duration::from_millis(limits::LINGER_MS))),
                        },
                        false => Closing::Closed,
                    };
                }
                Closing::Lingering { left_bytes, until } => {
                    let mut scratch = [0; 8 << 10];
                    let mut buf = ReadBuf::new(&mut scratch);
                    let is_over = until.as_mut().poll(cx).is_ready();
                    if !is_over {
                        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
                    }
                    *left_bytes = left_bytes.saturating_sub(buf.filled().len() as u64);
                    if is_over || buf.filled().is_empty() || *left_bytes == 0 {
                        *closing = Closing::Closed;
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
