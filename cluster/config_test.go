package cluster

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

func TestConfig_Defaults(t *testing.T) {
	cfg, err := Config{}.validate()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "evently" || cfg.GossipAddr != "127.0.0.1:0" || cfg.RemoteAddr != "127.0.0.1:0" || cfg.Profile != ProfileLAN ||
		cfg.Logger == nil || cfg.Quorum != 0 {
		t.Errorf("got %+v", cfg)
	}
}

func TestConfig_MistakesAreNamed(t *testing.T) {
	for want, cfg := range map[string]Config{
		"name of 65 bytes":                 {Name: strings.Repeat("n", 65)},
		"profile \"slow\"":                 {Profile: "slow"},
		"quorum -1":                        {Quorum: -1},
		"gossip address":                   {GossipAddr: "nowhere"},
		"remote address 0.0.0.0:7947 need": {RemoteAddr: "0.0.0.0:7947"},
		"remote address :7947 needs":       {RemoteAddr: ":7947"},
		"advertised remote address":        {RemoteAddr: "0.0.0.0:0", AdvertiseAddrs: Addrs{Remote: "10.0.0.1:0"}},
		"seed":                             {Join: []string{"nowhere"}},
		"kind \"event\" needs":             {Kinds: map[string]Kind{"event": {}}},
		"kind \"\" needs":                  {Kinds: map[string]Kind{"": {Props: func(string) *actor.Props { return nil }}}},
	} {
		if _, err := cfg.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestReadKey(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, size := range []int{16, 24, 32} {
		key := slices.Repeat([]byte{7}, size)
		if got, err := readKey(write(base64.StdEncoding.EncodeToString(key) + "\n")); err != nil || !slices.Equal(got, key) {
			t.Errorf("%d bytes: got %v, %v", size, got, err)
		}
	}
	if key, err := readKey(""); key != nil || err != nil {
		t.Errorf("no file: got %v, %v", key, err)
	}
	for _, text := range []string{"", "not base64!", base64.StdEncoding.EncodeToString([]byte("short"))} {
		if key, err := readKey(write(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, key)
		}
	}
}

func TestLogs_AreMappedToLevels(t *testing.T) {
	var out strings.Builder
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	stopped := false
	gossip := gossipLog{logger, func() bool { return stopped }}
	for _, line := range []string{
		"[ERR] memberlist: one\n", "[WARN] memberlist: two", "[INFO] three\n", "[DEBUG] memberlist: four",
		"five six",
	} {
		if n, err := gossip.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("wrote %d of %d, %v", n, len(line), err)
		}
	}
	stopped = true
	if _, err := gossip.Write([]byte("[ERR] memberlist: seven")); err != nil {
		t.Error(err)
	}
	proto := slog.New(protoLog{logger.Handler()}).With("lib", "p").WithGroup("g")
	proto.Info("dropped")
	proto.Warn("eight", "k", 1)
	proto.Error("nine")
	const want = `level=WARN msg=one
level=WARN msg=two
level=INFO msg=three
level=DEBUG msg=four
level=INFO msg="five six"
level=DEBUG msg=seven
level=WARN msg=eight lib=p g.k=1
level=WARN msg=nine lib=p
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}
