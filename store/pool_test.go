package store

import (
	"net"
	"strings"
	"testing"

	"github.com/evently/evently/store/pgtest"
)

func TestOpen_SettingsAreInForce(t *testing.T) {
	url := pgtest.Database(t)
	for _, c := range []struct {
		url     string
		options PoolOptions
		size    int32
		want    map[string]string
	}{
		{url, PoolOptions{}, MaxConnsDefault, map[string]string{
			"application_name": "evently", "jit": "off", "idle_in_transaction_session_timeout": "10s",
		}},
		{with(url, "pool_max_conns=5"), PoolOptions{}, 5, nil},
		{with(url, "pool_max_conns=5"), PoolOptions{MaxConns: 7}, 7, nil},
		{with(url, "application_name=mine"), PoolOptions{}, MaxConnsDefault, map[string]string{"application_name": "mine", "jit": "off"}},
	} {
		pool, err := Open(t.Context(), c.url, c.options)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if got := pool.Config().MaxConns; got != c.size {
			t.Errorf("%s %+v: %d connections, want %d", c.url, c.options, got, c.size)
		}
		for name, want := range c.want {
			var got string
			if err := pool.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %s is %q %v, want %q", c.url, name, got, err, want)
			}
		}
	}
}

// with adds a setting to a DSN of either form.
func with(dsn, setting string) string {
	switch {
	case !strings.Contains(dsn, "://"):
		return dsn + " " + setting
	case strings.Contains(dsn, "?"):
		return dsn + "&" + setting
	}
	return dsn + "?" + setting
}

func TestOpen_RefusesAPoolThatClaimsWouldExhaust(t *testing.T) {
	if _, err := Open(t.Context(), pgtest.Database(t), PoolOptions{MaxConns: 3}); err == nil || !strings.Contains(err.Error(), "at least 4") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestOpen_ErrorsHideThePassword(t *testing.T) {
	for _, url := range []string{
		"postgres://evently:hush@127.0.0.1:1/none", "postgres://evently:hush@127.0.0.1:port/none", "host=127.0.0.1 port=1 password=hush",
	} {
		if _, err := Open(t.Context(), url, PoolOptions{}); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v, want an error without the password", url, err)
		}
	}
}

func TestConnConfig_NoticesDeadPeersOverTCP(t *testing.T) {
	config, err := ConnConfig("postgres://evently@127.0.0.1/evently?tcp_user_timeout=7000")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "7000",
	} {
		if got := config.RuntimeParams[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := config.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkUserTimeout(t, conn.(*net.TCPConn))
	socket, err := ConnConfig("host=/nowhere dbname=evently")
	if err != nil {
		t.Fatal(err)
	}
	if value, found := socket.RuntimeParams["tcp_user_timeout"]; found {
		t.Errorf("tcp_user_timeout is %q on a socket without TCP", value)
	}
}
