package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/evently/evently/store/embedded/filelock"
)

// The superuser that initdb makes, and the database that Start makes.
const (
	superuser = "evently"
	database  = "evently"
)

// Server is a running Postgres. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	dir     dataDir
	install Installation
	account account
	log     *serverLog
	owner   *filelock.Lock

	port       int    // of TCP, or else only in the socket's name
	password   string // of TCP
	socketDir  string
	socketMade bool // socketDir is ours to remove

	compression string // of the WAL

	turn    sync.Mutex // held by the one Stop or Restart at work
	stopped bool       // guarded by turn

	mu        sync.Mutex
	postgres  *child
	gone      bool  // postgres has ended
	expectEnd bool  // its end is the affair of the method at work
	err       error // why it ended otherwise
	ended     bool
	done      chan struct{} // closed once ended
}

// Start runs Postgres on cfg.DataDir, making that first if it is missing, and returns when the database `evently`
// takes connections. ctx bounds the start only; recovery from a crash can take a while.
//
// Errors: InUseError (errors.Is ErrInUse) if another process owns the directory, VersionError if another major
// version made it, ReachError if the server's account cannot enter it, ErrNotFound if there is no Postgres. All
// others carry the tail of the server's log where there is one. After an error nothing of it runs.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := Reachable(cfg.DataDir); err != nil {
		return nil, err
	}
	dir, err := dataDirAt(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if err := dir.create(); err != nil {
		return nil, err
	}
	owner, err := dir.own(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, dir: dir, owner: owner, port: cfg.Port,
		log: &serverLog{to: cfg.logger()}, done: make(chan struct{}),
	}
	if !cfg.TCP {
		s.port = socketPort
	}
	if err := s.boot(ctx); err != nil {
		return nil, errors.Join(err, afterFailure(ctx, s.StopImmediate))
	}
	cfg.logger().Info("PostgreSQL is up", "version", s.install.Version, "data_dir", string(dir), "took", time.Since(began))
	return s, nil
}

// afterFailure ends what a failed start began, even if it was ctx that failed it.
func afterFailure(ctx context.Context, end func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killAfter)
	defer cancel()
	return end(ctx)
}

// boot does all that needs the directory to be owned.
func (s *Server) boot(ctx context.Context) error {
	major, err := s.dir.major()
	if err != nil {
		return err
	}
	if s.install, err = Find(ctx, s.cfg); err != nil {
		return err
	}
	if major != 0 && major != s.install.Major {
		return &VersionError{DataDir: string(s.dir), Major: major, Installed: s.install}
	}
	// Only now: an installation may have brought the account.
	if s.account, err = serverAccount(s.dir.pgdata()); err != nil {
		return err
	}
	if s.socketDir, err = s.chooseSocketDir(); err != nil {
		return err
	}
	if major == 0 {
		if err := s.dir.initdb(ctx, s.cfg, s.install, s.account, s.log); err != nil {
			return err
		}
	}
	s.compression = s.walCompression(ctx)
	if s.cfg.TCP {
		if err := s.prepareTCP(); err != nil {
			return err
		}
	}
	if err := s.launchOnFreePort(ctx); err != nil {
		return err
	}
	if err := s.prepareDatabase(ctx, major == 0); err != nil {
		return fmt.Errorf("embedded: prepare the database: %w; the server's log ends:\n%s", err, s.log)
	}
	return s.dir.publish(s.DSN())
}

// DSN is the URL of the database `evently`: by the socket, or with Config.TCP by the address. It stays the same
// over Restart, and over Stop and Start if Config.Port is given or TCP is off.
func (s *Server) DSN() string { return s.DatabaseDSN(database) }

// DatabaseDSN is the URL of the named database, which need not exist.
func (s *Server) DatabaseDSN(name string) string {
	if !s.cfg.TCP {
		return s.socketDSN(name)
	}
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.password),
		Host: "127.0.0.1:" + strconv.Itoa(s.port), Path: "/" + name, RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// Version is that of Postgres, such as "15.18".
func (s *Server) Version() string { return s.install.Version }

// DataDir is Config.DataDir, absolute.
func (s *Server) DataDir() string { return string(s.dir) }

// PID is the process id of the postmaster, the last one's if it has ended.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.postgres.cmd.Process.Pid
}

// Done is closed when the server has ended: unexpectedly, or by Stop.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the server ended unexpectedly, with the tail of its log. It is nil while it runs and after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Shutdown is a way to end the server.
type Shutdown int

// Fast ends sessions and writes a checkpoint. Immediate is a crash from which the next start recovers.
const (
	Fast Shutdown = iota
	Immediate
)

func (how Shutdown) signal() syscall.Signal {
	if how == Immediate {
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// Stop shuts the server down fast, waits for its end and gives the data directory up. If ctx ends first, the
// shutdown becomes immediate and Stop returns an error, but still only after the end. Any error means that the next
// start has to recover, not that data is lost. Further calls do nothing, as does one after Done but for giving up.
func (s *Server) Stop(ctx context.Context) error { return s.stop(ctx, Fast) }

// StopImmediate is Stop with an immediate shutdown: no committed transaction is lost.
func (s *Server) StopImmediate(ctx context.Context) error { return s.stop(ctx, Immediate) }

func (s *Server) stop(ctx context.Context, how Shutdown) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	// First, so that nobody who comes now is sent to a server that ends.
	errs := []error{removeIfThere(s.dir.ownerDSN())}
	errs = append(errs, s.halt(ctx, how))
	if s.socketMade {
		errs = append(errs, os.RemoveAll(s.socketDir))
	}
	errs = append(errs, s.owner.Unlock())
	s.end(nil)
	return errors.Join(errs...)
}

// Restart ends the server and starts it again on the same address. The DSN remains valid; sessions break, and
// connections are refused meanwhile. It fails if the server has ended before, and if it does not come up again it has.
func (s *Server) Restart(ctx context.Context, how Shutdown) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	select {
	case <-s.done:
		return errors.Join(errors.New("embedded: restart of a server that has ended"), s.Err())
	default:
	}
	err := s.halt(ctx, how)
	if err == nil {
		err = s.launch(ctx)
	}
	if err != nil {
		s.end(err)
	}
	return err
}

// halt ends the postmaster, if there is one, and waits for that.
func (s *Server) halt(ctx context.Context, how Shutdown) error {
	s.mu.Lock()
	s.expectEnd = true
	postgres, gone := s.postgres, s.gone
	s.mu.Unlock()
	if postgres == nil {
		return nil
	}
	if gone {
		// By itself: that is Err's to report.
		<-postgres.exited
		return nil
	}
	err := postgres.signal(how.signal())
	select {
	case <-postgres.exited:
		if how == Fast && postgres.err != nil { // as when the disk is too full for the checkpoint
			err = fmt.Errorf("embedded: stop: %w; the next start recovers; the server's log ends:\n%s", errors.Join(err, postgres.err), s.log)
		}
		return err
	case <-ctx.Done():
	}
	err = errors.Join(ctx.Err(), err, postgres.signal(syscall.SIGQUIT))
	select {
	case <-postgres.exited:
	case <-time.After(killAfter):
		// Its children notice the death of the postmaster by themselves.
		err = errors.Join(err, postgres.signal(syscall.SIGKILL))
		<-postgres.exited
	}
	return fmt.Errorf("embedded: stop: %w; the next start recovers", err)
}

// ending is called when the postmaster has ended.
func (s *Server) ending(outcome error) {
	s.mu.Lock()
	s.gone = true
	expected := s.expectEnd
	s.mu.Unlock()
	if expected {
		return
	}
	if outcome == nil {
		outcome = errors.New("it was shut down by somebody else")
	}
	s.cfg.logger().Error("PostgreSQL has ended", "cause", outcome)
	s.end(fmt.Errorf("embedded: PostgreSQL has ended: %w; its log ends:\n%s", outcome, s.log))
}

func (s *Server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	close(s.done)
}

// launch starts the postmaster and waits until it takes connections. If that fails it does not run.
func (s *Server) launch(ctx context.Context) error {
	lock, err := s.dir.lockServer(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(s.dir.removeStalePID(), s.makeSocketDir()); err != nil {
		return errors.Join(err, lock.Leave())
	}
	args := append([]string{"-D", s.dir.pgdata()}, s.cfg.arguments(s.port, s.socketDir, s.hbaFile(), s.compression)...)
	cmd := s.account.command(string(s.dir), filepath.Join(s.install.BinDir, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.ExtraFiles = append(cmd.ExtraFiles, lock.File())

	s.mu.Lock()
	s.gone, s.expectEnd = false, true
	s.mu.Unlock()
	postgres, err := spawn(cmd, s.ending)
	if err != nil {
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
		return fmt.Errorf("embedded: start postgres as %s: %w", s.account.name, errors.Join(err, lock.Leave()))
	}
	s.mu.Lock()
	s.postgres = postgres
	s.mu.Unlock()
	// From here on only the server's own processes hold the lock.
	err = lock.Leave()
	if err == nil {
		err = s.waitReady(ctx, postgres)
	}
	if err == nil && !s.isUp() {
		err = errEndedAtOnce
	}
	if err != nil {
		err = errors.Join(err, afterFailure(ctx, func(ctx context.Context) error { return s.halt(ctx, Immediate) }))
		return fmt.Errorf("embedded: start PostgreSQL %s on %s as %s: %w; its log ends:\n%s",
			s.install.Version, s.dir, s.account.name, err, s.log)
	}
	return nil
}

// isUp hands the end of the postmaster over to ending, unless it has come already.
func (s *Server) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expectEnd = s.gone
	return !s.gone
}

var errEndedAtOnce = errors.New("it ended at once")

// waitReady watches the state that the postmaster writes to its pid file, as pg_ctl does.
func (s *Server) waitReady(ctx context.Context, postgres *child) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-postgres.exited:
			return errors.Join(errEndedAtOnce, postgres.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
		lines, err := s.dir.pidLines()
		if err != nil {
			return err
		}
		if len(lines) >= 8 && lines[0] == strconv.Itoa(postgres.cmd.Process.Pid) && lines[7] == "ready" {
			return nil
		}
	}
}
