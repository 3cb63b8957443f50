package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/http"
	"github.com/evently/evently/store"
)

// Config is all settings of the program. The table in settings says what each means, its unit, bounds and default.
type Config struct {
	File      string
	Env       string
	LogFormat string
	LogLevel  string
	DataDir   string // "": the default of defaultDataDir

	DatabaseURL  string
	PGProvision  string
	StartTimeout time.Duration
	Migrate      string

	HTTPAddr                string
	AdminAddr               string
	JWTSecret               string
	PastSecrets             []string
	TokenIssuer             string
	TokenAudience           string
	AccessTTL               time.Duration
	RefreshTTL              time.Duration
	RateLimitBook           http.Limit
	RateLimitAuth           http.Limit
	RateLimitAddress        http.Limit
	RequireVerified         string
	TrustedProxies          []string
	CORSOrigins             []string
	HoldTTL                 time.Duration
	PricingInterval         time.Duration // 0: off
	Consumers               string
	AccessLog               int // one request of so many; 0: none
	StreamClientsMax        int
	StreamClientsPerAddress int

	RetentionSecurityLog time.Duration // 0 of each: never removed
	RetentionWebhooks    time.Duration
	RetentionMail        time.Duration
	RetentionAnswers     time.Duration
	RetentionJournal     string

	DrainDelay   time.Duration
	DrainTimeout time.Duration
	SMTPURL      string
	MailFrom     string
	MailRate     int
	PublicURL    string

	WebhookAllowPrivate string

	ClusterAddr      string
	ClusterAdvertise string
	RemoteAddr       string
	RemoteAdvertise  string
	Join             []string
	ClusterKeyFile   string
	ClusterQuorum    int
	ClusterProfile   string
	RemoteTLSCert    string
	RemoteTLSKey     string
	RemoteTLSCA      string

	AdminEmail    string
	AdminPassword string
}

const (
	development = "development"
	production  = "production"
	on          = "on"
	off         = "off"
	auto        = "auto"
	never       = "never"
	yes         = "true"
	no          = "false"
)

// settings is the table of settings, bound to the fields of c. The order is that of the documentation.
func (c *Config) settings() []setting {
	return []setting{
		{name: "config", group: every, value: textValue{&c.File}, help: "YAML file of settings, by the names in this table"},
		{
			name: "env", group: every, value: wordValue{&c.Env, []string{development, production}}, fallback: development,
			help: "production refuses weak or well-known secrets and the embedded database",
		},
		{
			name: "log_format", group: every, value: wordValue{&c.LogFormat, []string{"json", "text"}}, fallback: "text",
			help: "json or text; the log goes to standard error",
		},
		{
			name: "log_level", group: every, value: wordValue{&c.LogLevel, []string{"debug", "info", "warn", "error"}}, fallback: "info",
			help: "the least level that is logged: debug, info, warn or error",
		},
		{
			name: "data_dir", group: every, value: textValue{&c.DataDir},
			shown: "$XDG_DATA_HOME/evently, ~/.local/share/evently; for root /var/lib/evently",
			help:  "directory of the embedded database and of generated secrets",
		},

		{
			name: "database_url", group: database, value: textValue{&c.DatabaseURL}, secret: true, plain: "DATABASE_URL",
			shown: "the embedded database of data_dir",
			help:  "Postgres 15 or later, postgres://user:password@host:port/name; serve requires it",
		},
		{
			name: "pg_provision", group: database, value: wordValue{&c.PGProvision, []string{auto, never}}, fallback: auto,
			help: "auto installs a missing Postgres where that can be done (root on Debian), never does not; " +
				"the variable EVENTLY_PG_BIN names the directory of its programs",
		},
		{
			name: "start_timeout", group: database, value: durationValue{&c.StartTimeout, 0, time.Hour}, fallback: "1m",
			help: "how long a starting node waits for the database and for the cluster, up to 1h",
		},
		{
			name: "migrate", group: node, value: wordValue{&c.Migrate, []string{auto, never}}, fallback: auto,
			help: "auto brings the database's schema up to date at start, never refuses to start without",
		},

		{
			name: "http_addr", group: node, value: addressValue{&c.HTTPAddr}, fallback: "127.0.0.1:8080",
			help: "where the API is served; port 0 takes a free one",
		},
		{
			name: "admin_addr", group: node, value: addressValue{&c.AdminAddr}, fallback: "127.0.0.1:8081",
			help: "where /metrics, /debug/pprof and the mails without smtp_url are served, without authentication: keep it private",
		},
		{
			name: "jwt_secret", group: node, value: textValue{&c.JWTSecret}, secret: true, plain: "JWT_SECRET",
			shown: "made on first start; none in production",
			help:  "key that signs access tokens, the same on all nodes; production wants 32 random bytes or more",
		},
		{
			name: "jwt_past_secrets", group: node, value: listValue{&c.PastSecrets}, secret: true,
			help: "comma list of former jwt_secrets whose tokens and one-time codes are still accepted, for a rotation without sign-outs",
		},
		{
			name: "token_issuer", group: node, value: textValue{&c.TokenIssuer}, fallback: "evently",
			help: "iss of access tokens, written and required",
		},
		{
			name: "token_audience", group: node, value: textValue{&c.TokenAudience}, fallback: "evently",
			help: "aud of access tokens, written and required",
		},
		{
			name: "access_ttl", group: node, value: durationValue{&c.AccessTTL, time.Minute, 24 * time.Hour}, fallback: "15m",
			help: "life of an access token, 1m to 24h",
		},
		{
			name: "refresh_ttl", group: node, value: durationValue{&c.RefreshTTL, time.Hour, 366 * 24 * time.Hour}, fallback: "720h",
			help: "life of a session from sign-in, used or not, 1h to 8784h",
		},
		{
			name: "rate_limit_book", group: node, value: limitValue{&c.RateLimitBook}, fallback: "10/1m",
			help: "bookings and joinings of waitlists of one user, as count/time such as 10/1m, or off",
		},
		{
			name: "rate_limit_auth", group: node, value: limitValue{&c.RateLimitAuth}, fallback: "20/1m",
			help: "registrations, sign-ins, token refreshes, codes and passwords from one IP address, as count/time, or off",
		},
		{
			name: "rate_limit_address", group: node, value: limitValue{&c.RateLimitAddress}, fallback: off,
			help: "requests of all kinds from one IP address, as count/time, or off",
		},
		{
			name: "require_verified_email", group: node, value: wordValue{&c.RequireVerified, []string{yes, no}}, fallback: no,
			help: "true lets only users with a verified e-mail address book seats and wait for them",
		},
		{
			name: "trusted_proxies", group: node, value: listValue{&c.TrustedProxies},
			help: "comma list of IPs or CIDRs whose X-Forwarded-For is believed",
		},
		{
			name: "cors_origins", group: node, value: listValue{&c.CORSOrigins},
			help: "comma list of origins that browsers may call the API from",
		},
		{
			name: "hold_ttl", group: node, value: durationValue{&c.HoldTTL, evently.HoldTTLMin, evently.HoldTTLMax},
			fallback: short(evently.HoldTTLDefault),
			help:     "how long a hold lives unless it is confirmed, for events that do not say, 1s to 168h",
		},
		{
			name: "pricing_interval", group: node, value: periodValue{&c.PricingInterval, time.Second, 31 * 24 * time.Hour},
			fallback: "24h", help: "how often one node of all applies the pricing rules, 1s to 744h, or off",
		},
		{
			name: "consumers", group: node, value: wordValue{&c.Consumers, []string{on, off}}, fallback: on,
			help: "off leaves what follows bookings to other nodes, of which one must have it on: analytics, mails, webhooks and jobs",
		},
		{
			name: "access_log", group: node, value: shareValue{&c.AccessLog}, fallback: off,
			help: "on logs every request; a share such as 1/100 logs one of a hundred, and all that are answered with 500 or more",
		},
		{
			name: "stream_clients_max", group: node, value: countValue{&c.StreamClientsMax, 1, 1_000_000}, fallback: "10000",
			help: "streams of availability that a node has open at a time, 1 to 1000000; each takes a connection and some 30 KiB",
		},
		{
			name: "stream_clients_per_address", group: node, value: countValue{&c.StreamClientsPerAddress, 1, 1_000_000}, fallback: "500",
			help: "streams of availability of one IP address at a node, 1 to 1000000; see trusted_proxies",
		},
		{
			name: "retention_security_log", group: node, value: keepValue{&c.RetentionSecurityLog, store.SecurityLogKeepMin}, fallback: "400d",
			help: "how long sign-ins, changes of roles and the like stay in the security log, such as 400d, 30d at least, or never to remove them",
		},
		{
			name: "retention_webhook_deliveries", group: node, value: keepValue{&c.RetentionWebhooks, 24 * time.Hour}, fallback: "30d",
			help: "how long ended deliveries of webhooks stay in their log, 1d at least, or never",
		},
		{
			name: "retention_mail", group: node, value: keepValue{&c.RetentionMail, time.Hour}, fallback: "30d",
			help: "how long mails stay in the mailbox that stands for a mail server, 1h at least, or never",
		},
		{
			name: "retention_answers", group: node, value: keepValue{&c.RetentionAnswers, evently.KeyRetentionMin}, fallback: "24h",
			help: "how long a request with an Idempotency-Key, other than a booking, can be repeated, 24h at least, or never to forget it",
		},
		{
			name: "retention_journal", group: node, value: wordValue{&c.RetentionJournal, []string{never}}, fallback: never,
			help: "the journal of events is never removed: it is the audit trail, and what verify and replay work from",
		},
		{
			name: "drain_delay", group: node, value: durationValue{&c.DrainDelay, 0, 5 * time.Minute}, fallback: "0s",
			help: "how long a stopping node goes on serving with /readyz at 503, for load balancers to notice, up to 5m",
		},
		{
			name: "drain_timeout", group: node, value: durationValue{&c.DrainTimeout, time.Second, 10 * time.Minute}, fallback: "15s",
			help: "how long a stopping node then waits for requests under way, 1s to 10m",
		},
		{
			name: "smtp_url", group: node, value: textValue{&c.SMTPURL}, secret: true,
			shown: "mails are shown at /dev/mailbox of admin_addr; none are sent in production",
			help: "mail server: smtp://user:password@host:587 with STARTTLS, unless the host is this machine or ?tls=off follows, " +
				"or smtps://user:password@host:465",
		},
		{
			name: "mail_from", group: node, value: textValue{&c.MailFrom}, shown: "needed with smtp_url",
			help: "sender of mails, such as Evently <tickets@example.org>",
		},
		{
			name: "mail_rate", group: node, value: countValue{&c.MailRate, 1, 10_000}, fallback: "50",
			help: "mails that a node sends in a second at the most, 1 to 10000; more are sent later",
		},
		{
			name: "public_url", group: node, value: textValue{&c.PublicURL},
			help: "where people find the service, such as https://tickets.example, for links in mails; empty: mails have no links",
		},

		{
			name: "webhook_allow_private", group: node, value: wordValue{&c.WebhookAllowPrivate, []string{yes, no}}, fallback: no,
			help: "true allows webhooks to private addresses and by http, for tests and closed networks; else they go to public ones by https",
		},

		{
			name: "cluster_addr", group: node, value: addressValue{&c.ClusterAddr}, fallback: "127.0.0.1:0",
			help: "where gossip between nodes is received, UDP and TCP; port 0 takes a free one",
		},
		{
			name: "cluster_advertise", group: node, value: addressValue{&c.ClusterAdvertise}, shown: "cluster_addr",
			help: "host:port that other nodes reach cluster_addr at",
		},
		{
			name: "remote_addr", group: node, value: addressValue{&c.RemoteAddr}, fallback: "127.0.0.1:0",
			help: "where messages between event actors are received, TCP; port 0 takes a free one",
		},
		{
			name: "remote_advertise", group: node, value: addressValue{&c.RemoteAdvertise}, shown: "remote_addr",
			help: "host:port that other nodes reach remote_addr at",
		},
		{
			name: "join", group: node, value: listValue{&c.Join},
			help: "comma list of cluster addresses of other nodes; empty starts a cluster of one",
		},
		{
			name: "cluster_key_file", group: node, value: textValue{&c.ClusterKeyFile},
			help: "file with the key that encrypts gossip: 16, 24 or 32 bytes in base64, the same on all nodes",
		},
		{
			name: "cluster_quorum", group: node, value: countValue{&c.ClusterQuorum, 0, 1000}, fallback: "0",
			help: "how many nodes must see each other to serve: the majority, 2 of 3, 3 of 5; 0 turns it off",
		},
		{
			name: "cluster_profile", group: node, value: wordValue{&c.ClusterProfile, []string{"lan", "wan", "fast", "local"}}, fallback: "lan",
			help: "how fast a dead node is noticed: lan 4 s, wan 40 s, fast 2 s, local 6 s",
		},
		{
			name: "remote_tls_cert_file", group: node, value: textValue{&c.RemoteTLSCert},
			help: "PEM certificate of this node for messages between nodes, valid as server and as client; empty: plain text",
		},
		{
			name: "remote_tls_key_file", group: node, value: textValue{&c.RemoteTLSKey},
			help: "PEM key of remote_tls_cert_file",
		},
		{
			name: "remote_tls_ca_file", group: node, value: textValue{&c.RemoteTLSCA},
			help: "PEM certificates of the authority that signs the nodes' certificates",
		},

		{
			name: "admin_email", group: administrator, value: textValue{&c.AdminEmail}, fallback: "admin@evently.local",
			help: "address of the first administrator",
		},
		{
			name: "admin_password", group: administrator, value: textValue{&c.AdminPassword}, secret: true,
			shown: "made on first start",
			help:  "password of the first administrator, 8 to 256 characters",
		},
	}
}

// rootDataDir is where root's data is by default: the account that runs the embedded database cannot enter root's home.
const rootDataDir = "/var/lib/evently"

// defaultDataDir follows the XDG base directory specification, which takes only absolute paths. "" when there is no home.
func defaultDataDir(getenv func(string) string, root bool) string {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "evently")
	}
	if root {
		return rootDataDir
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "evently")
	}
	return ""
}

// check returns, as a usage error, what a node cannot run with although each setting is right by itself.
func (c *Config) check() error {
	if err := c.refuseUnsafe(); err != nil {
		return err
	}
	if c.DatabaseURL != "" {
		if err := c.checkDatabaseURL(); err != nil {
			return err
		}
	}
	if c.JWTSecret == "" && len(c.Join) > 0 {
		return usageError{errors.New("jwt_secret is not set: the nodes of a cluster need the same one")}
	}
	var wrong []error
	for _, listener := range []struct{ name, addr, advertised string }{
		{"cluster", c.ClusterAddr, c.ClusterAdvertise}, {"remote", c.RemoteAddr, c.RemoteAdvertise},
	} {
		host, _, err := net.SplitHostPort(listener.addr)
		if err != nil {
			return err
		}
		if ip, err := netip.ParseAddr(host); listener.advertised == "" && (host == "" || err == nil && ip.IsUnspecified()) {
			wrong = append(wrong, fmt.Errorf("%s_advertise is not set: other nodes cannot reach %s", listener.name, listener.addr))
		}
	}
	if c.HoldTTL%time.Second != 0 {
		wrong = append(wrong, fmt.Errorf("hold_ttl: %s is not a number of whole seconds", short(c.HoldTTL)))
	}
	for _, proxy := range c.TrustedProxies {
		_, notAddr := netip.ParseAddr(proxy)
		if _, notPrefix := netip.ParsePrefix(proxy); notAddr != nil && notPrefix != nil {
			wrong = append(wrong, fmt.Errorf("trusted_proxies: %q is neither an IP address nor a CIDR block", proxy))
		}
	}
	for _, origin := range c.CORSOrigins {
		if origin != "*" && !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
			wrong = append(wrong, fmt.Errorf("cors_origins: %q is neither * nor an origin such as https://tickets.example", origin))
		}
	}
	if c.ClusterKeyFile != "" {
		if _, err := readSecretFile(c.ClusterKeyFile); err != nil {
			wrong = append(wrong, fmt.Errorf("cluster_key_file: %w", err))
		}
	}
	if _, err := c.remoteTLS(); err != nil {
		wrong = append(wrong, err)
	}
	if c.RequireVerified == yes && c.Env == production && c.SMTPURL == "" {
		wrong = append(wrong, errors.New("require_verified_email is true and smtp_url is not set: nobody is mailed a code, and nobody can book"))
	}
	if err := c.checkMail(); err != nil {
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return usageError{err}
	}
	return nil
}

// tokenSecrets are the keys of access tokens, the signing one first. A key's name is a digest of it, so that all nodes use
// the same one, in any order.
func (c *Config) tokenSecrets() []http.Secret {
	var secrets []http.Secret
	for _, text := range append([]string{c.JWTSecret}, c.PastSecrets...) {
		key := []byte(text)
		if len(key) < http.SecretBytesMin { // only in development: see refuseUnsafe
			digest := sha256.Sum256(key)
			key = digest[:]
		}
		digest := sha256.Sum256(append([]byte("evently token key "), key...))
		name := hex.EncodeToString(digest[:4])
		if !slices.ContainsFunc(secrets, func(s http.Secret) bool { return s.KID == name }) {
			secrets = append(secrets, http.Secret{KID: name, Key: key})
		}
	}
	return secrets
}

// secretKeys are the keys of tokenSecrets: what is stored is sealed under the first, and may be under one of the others.
func (c *Config) secretKeys() [][]byte {
	var keys [][]byte
	for _, secret := range c.tokenSecrets() {
		keys = append(keys, secret.Key)
	}
	return keys
}

// remoteTLS is what protects messages between nodes, or nil for plain text.
func (c *Config) remoteTLS() (*tls.Config, error) {
	if c.RemoteTLSCert == "" && c.RemoteTLSKey == "" && c.RemoteTLSCA == "" {
		return nil, nil
	}
	if c.RemoteTLSCert == "" || c.RemoteTLSKey == "" || c.RemoteTLSCA == "" {
		return nil, usageError{errors.New("remote_tls_cert_file, remote_tls_key_file and remote_tls_ca_file go together")}
	}
	pair, err := tls.LoadX509KeyPair(c.RemoteTLSCert, c.RemoteTLSKey)
	if err != nil {
		return nil, usageError{fmt.Errorf("remote_tls_cert_file, remote_tls_key_file: %w", err)}
	}
	authority, err := os.ReadFile(c.RemoteTLSCA)
	if err != nil {
		return nil, usageError{fmt.Errorf("remote_tls_ca_file: %w", err)}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, usageError{fmt.Errorf("remote_tls_ca_file: no PEM certificate in %s", c.RemoteTLSCA)}
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}
