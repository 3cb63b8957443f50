package peers

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently/store/pgtest"
)

func TestStartRedis_TellsWhenThereIsNone(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := StartRedis(t.Context(), t.TempDir()); !errors.Is(err, ErrNoRedis) || !strings.Contains(err.Error(), "install redis-server") {
		t.Error(err)
	}
}

func TestStartRedis_TellsWhyItDoesNotStart(t *testing.T) {
	dir := pgtest.Dir(t)
	if err := os.WriteFile(dir+"/appendonlydir", nil, 0o600); err != nil { // where a directory has to be
		t.Fatal(err)
	}
	if _, err := StartRedis(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "appendonlydir") {
		t.Error(err)
	}
}

func TestStartRedis_KeepsWhatItAcknowledged(t *testing.T) {
	dir := pgtest.Dir(t)
	for n := range 2 {
		r, err := StartRedis(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		client := connectRedis(r.Addr)
		if got := client.Incr(t.Context(), "n").Val(); got != int64(n+1) {
			t.Errorf("start %d: %d", n, got)
		}
		settings := client.ConfigGet(t.Context(), "append*").Val()
		if settings["appendonly"] != "yes" || settings["appendfsync"] != "everysec" {
			t.Errorf("settings %v, not %s", settings, RedisSettings)
		}
		if r.Version == "" || r.PID == 0 {
			t.Errorf("%+v", r)
		}
		closed(t, client.Close)
		closed(t, r.Stop)
		select {
		case <-r.exited:
		case <-time.After(time.Second):
			t.Error("it runs on")
		}
	}
}
