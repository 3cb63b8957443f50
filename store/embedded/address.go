package embedded

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const (
	// socketPathMax is the longest path of a socket in bytes; the smallest limit of a system is 104.
	socketPathMax = 100
	// portAttemptsMax bounds the attempts to find a port that nobody takes in the same moment.
	portAttemptsMax = 5
)

// chooseSocketDir is DataDir/run, so that the address stays the same, or where that would make too long
// a path, or one that a DSN cannot name, a directory for temporary files whose name is derived from DataDir.
func (s *Server) chooseSocketDir() (string, error) {
	name := fmt.Sprintf("evently-pg-%x", sha256.Sum256([]byte(s.dir)))[:len("evently-pg-")+12]
	for _, dir := range []string{s.dir.file("run"), filepath.Join(os.TempDir(), name), filepath.Join("/tmp", name)} {
		// A comma separates hosts.
		if len(dir)+len("/.s.PGSQL.65535") > socketPathMax || strings.Contains(dir, ",") {
			continue
		}
		if s.account.reach(filepath.Dir(dir)) == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("embedded: no directory for the socket: %s is too long, and %s and /tmp cannot be used by %s",
		s.dir, os.TempDir(), s.account.name)
}

// makeSocketDir is called with the server's lock held, so that what is there is stale. In a directory for
// temporary files somebody else may have taken the name.
func (s *Server) makeSocketDir() error {
	info, err := os.Lstat(s.socketDir)
	if err == nil {
		owner := int(info.Sys().(*syscall.Stat_t).Uid)
		if s.account.cred != nil && owner != int(s.account.cred.Uid) || s.account.cred == nil && owner != os.Geteuid() {
			return fmt.Errorf("embedded: %s belongs to uid %d: remove it", s.socketDir, owner)
		}
		err = os.RemoveAll(s.socketDir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("embedded: %w", err)
	}
	if err := s.account.makeDir(s.socketDir); err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	s.socketMade = true
	return nil
}

func (s *Server) socketDSN(name string) string {
	query := url.Values{"host": {s.socketDir}, "port": {strconv.Itoa(s.port)}}
	// Readers of DSNs, as libpq, do not take a plus for a space.
	encoded := strings.ReplaceAll(query.Encode(), "+", "%20")
	dsn := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + name, RawQuery: encoded}
	return dsn.String()
}

func (s *Server) hbaFile() string { return s.dir.file("tcp_hba.conf") }

// prepareTCP finds or makes the password, and the rules that ask for it.
func (s *Server) prepareTCP() error {
	path := s.dir.file("tcp.password")
	password, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		password = []byte(rand.Text())
		err = replaceFile(path, string(password), 0o600)
	}
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	s.password = string(password)
	rules := "local all,replication all trust\nhost all,replication all 127.0.0.1/32 scram-sha-256\n"
	return replaceFile(s.hbaFile(), rules, 0o644)
}

// launchOnFreePort is launch, with a port where one is wanted and none is given.
func (s *Server) launchOnFreePort(ctx context.Context) error {
	if !s.cfg.TCP || s.cfg.Port != 0 {
		return s.launch(ctx)
	}
	for attempt := 1; ; attempt++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("embedded: find a free port: %w", err)
		}
		s.port = listener.Addr().(*net.TCPAddr).Port
		if err := listener.Close(); err != nil {
			return fmt.Errorf("embedded: find a free port: %w", err)
		}
		err = s.launch(ctx)
		if err == nil || attempt == portAttemptsMax || !strings.Contains(s.log.String(), "Address already in use") {
			return err
		}
	}
}

// prepareDatabase makes the database if the server is fresh, or if a predecessor ended between initdb and here.
func (s *Server) prepareDatabase(ctx context.Context, fresh bool) (err error) {
	if fresh {
		if err := s.createDatabase(ctx); err != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, s.socketDSN(database))
	if hasCode(err, noSuchDatabase) {
		if err := s.createDatabase(ctx); err != nil {
			return err
		}
		conn, err = pgx.Connect(ctx, s.socketDSN(database))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if s.cfg.TCP {
		// The password consists of letters and digits.
		_, err = conn.Exec(ctx, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", superuser, s.password))
	}
	return err
}

func (s *Server) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.socketDSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	return errors.Join(err, conn.Close(ctx))
}
