package http

import (
	"bytes"
	"encoding/base64"
	"hash/maphash"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

var whoRoutes = []route{
	{method: "GET", path: "/who", access: accountOwn, handle: func(c *gin.Context) error {
		writeJSON(c, http.StatusOK, principal(c))
		return nil
	}},
	{method: "GET", path: "/organizers", access: eventsOwn, handle: okHandler},
	{method: "GET", path: "/admins", access: systemRead, handle: okHandler},
}

func TestToken_IsRefusedUnlessAllOfItIsRight(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	now := w.clock.Now()
	good := func() (header, claims map[string]any) {
		return map[string]any{"alg": "HS256", "typ": "JWT", "kid": testSecret.KID}, map[string]any{
			"iss": "evently", "aud": "evently", "sub": evently.UserID(7).String(), "sid": sessionText(evently.SessionID{1}), "role": "user",
			"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}
	}
	sign := func(method jwt.SigningMethod, key any, change func(header, claims map[string]any)) string {
		header, claims := good()
		change(header, claims)
		text, err := (&jwt.Token{Header: header, Claims: jwt.MapClaims(claims), Method: method}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	set := func(name string, value any) string {
		return sign(jwt.SigningMethodHS256, testSecret.Key, func(header, claims map[string]any) {
			target := claims
			if _, inHeader := header[name]; inHeader {
				target = header
			}
			if target[name] = value; value == nil {
				delete(target, name)
			}
		})
	}
	right := set("role", "user")
	if a := w.do(t, "GET", "/who", "", "Authorization", "Bearer "+right); a.status != http.StatusOK {
		t.Fatalf("a right token: %d %s", a.status, a.body)
	}
	parts := strings.Split(right, ".")
	for name, text := range map[string]string{
		"garbage":         "garbage",
		"empty parts":     "..",
		"no signature":    parts[0] + "." + parts[1] + ".",
		"other signature": parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)),
		"other claims":    parts[0] + "." + strings.Split(set("role", "admin"), ".")[1] + "." + parts[2],
		"too long":        right + strings.Repeat("A", tokenLenMax),
		"alg none": sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, func(header, _ map[string]any) {
			header["alg"] = "none"
		}),
		"alg HS384":                  sign(jwt.SigningMethodHS384, testSecret.Key, func(header, _ map[string]any) { header["alg"] = "HS384" }),
		"alg HS512":                  sign(jwt.SigningMethodHS512, testSecret.Key, func(header, _ map[string]any) { header["alg"] = "HS512" }),
		"alg RS256, our HMAC":        sign(jwt.SigningMethodHS256, testSecret.Key, func(header, _ map[string]any) { header["alg"] = "RS256" }),
		"another key":                sign(jwt.SigningMethodHS256, bytes.Repeat([]byte("y"), 32), func(_, _ map[string]any) {}),
		"no kid":                     set("kid", nil),
		"unknown kid":                set("kid", "k9"),
		"kid of another type":        set("kid", 1),
		"no exp":                     set("exp", nil),
		"expired":                    set("exp", now.Unix()),
		"no iat":                     set("iat", nil),
		"older than a token may get": set("iat", now.Add(-accessTTLDefault).Unix()),
		"not yet valid":              set("nbf", now.Add(time.Minute).Unix()),
		"no iss":                     set("iss", nil),
		"other iss":                  set("iss", "someone"),
		"no aud":                     set("aud", nil),
		"other aud":                  set("aud", "someone"),
		"no sub":                     set("sub", nil),
		"other sub":                  set("sub", "evt_0000000000007"),
		"no sid":                     set("sid", nil),
		"zero sid":                   set("sid", sessionText(evently.SessionID{})),
		"upper-case sid":             set("sid", strings.ToUpper(sessionText(evently.SessionID{0xab}))),
		"no role":                    set("role", nil),
		"unknown role":               set("role", "root"),
	} {
		a := w.do(t, "GET", "/who", "", "Authorization", "Bearer "+text)
		if a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, a.status, a.body)
			continue
		}
		a.problem(t, evently.CodeUnauthenticated)
		if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="evently", error="invalid_token"` {
			t.Errorf("%s: WWW-Authenticate is %q", name, got)
		}
	}
}

func TestToken_Header(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	bearer, who := w.token(t, evently.RoleUser)
	text := strings.TrimPrefix(bearer, "Bearer ")
	for _, header := range []string{bearer, "bearer " + text, "BEARER " + text} {
		if a := w.do(t, "GET", "/who", "", "Authorization", header); a.status != http.StatusOK || !strings.Contains(string(a.body), `"Role":0`) {
			t.Errorf("%.10s: %d %s", header, a.status, a.body)
		}
	}
	for _, headers := range [][]string{
		{},
		{"Authorization", ""},
		{"Authorization", "Bearer"},
		{"Authorization", "Bearer "},
		{"Authorization", "Basic " + text},
		{"Authorization", text},
		{"Authorization", bearer, "Authorization", bearer},
	} {
		a := w.do(t, "GET", "/who", "", headers...)
		a.problem(t, evently.CodeUnauthenticated)
		if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="evently"` {
			t.Errorf("%.40q: WWW-Authenticate is %q", headers, got)
		}
	}
	if got, err := w.server.tokens.verify(text, w.clock.Now()); err != nil || got != who {
		t.Errorf("verify gives %+v, %v, want %+v", got, err, who)
	}
}

func TestToken_ExpiresThoughItIsRemembered(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	token, _ := w.token(t, evently.RoleUser)
	ask := func() *answer { return w.do(t, "GET", "/who", "", "Authorization", token) }
	for range 2 {
		if a := ask(); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if hits, misses := testutil.ToFloat64(w.server.tokens.hits), testutil.ToFloat64(w.server.tokens.misses); hits != 1 || misses != 1 {
		t.Errorf("%v hits and %v misses counted", hits, misses)
	}
	remembered := 0
	for i := range w.server.tokens.verified {
		remembered += len(w.server.tokens.verified[i].at)
	}
	if remembered != 1 {
		t.Errorf("%d tokens remembered", remembered)
	}
	w.clock.add(accessTTLDefault - time.Second)
	if a := ask(); a.status != http.StatusOK {
		t.Errorf("a second before the end: %d", a.status)
	}
	w.clock.add(time.Second)
	ask().problem(t, evently.CodeUnauthenticated)
}

// A remembered token vouches for no other text, should the two have the same hash.
func TestToken_IsNotTakenForOneOfTheSameHash(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	bearer, who := w.token(t, evently.RoleUser)
	text := strings.TrimPrefix(bearer, "Bearer ")
	tokens := w.server.tokens
	collide := func(text string) {
		hash := maphash.String(tokens.seed, text)
		admin := verifiedToken{evently.Principal{User: 1, Role: evently.RoleAdmin}, w.clock.Now().Add(time.Hour)}
		tokens.verified[hash%tokenShards].put(hash, knownToken{"of the same hash", admin})
	}
	collide(text)
	for range 2 {
		if got, err := tokens.verify(text, w.clock.Now()); err != nil || got != who {
			t.Errorf("got %+v, %v, want %+v", got, err, who)
		}
	}
	collide("forged")
	if got, err := tokens.verify("forged", w.clock.Now()); err == nil {
		t.Errorf("a forged token speaks for %+v", got)
	}
}

// A new secret signs as soon as it is first, and the old one is good for what it signed until it is dropped.
func TestToken_SecretsRotate(t *testing.T) {
	old, fresh := testSecret, Secret{KID: "k2", Key: bytes.Repeat([]byte("z"), SecretBytesMin)}
	with := func(secrets ...Secret) *site {
		return newSite(t, func(config *Config) { config.Tokens.Secrets = secrets }, whoRoutes...)
	}
	status := func(w *site, token string) int { return w.do(t, "GET", "/who", "", "Authorization", token).status }
	before, during, after := with(old), with(fresh, old), with(fresh)
	byOld, _ := before.token(t, evently.RoleUser)
	byFresh, _ := during.token(t, evently.RoleUser)
	for _, c := range []struct {
		name  string
		site  *site
		token string
		want  int
	}{
		{"old before", before, byOld, 200},
		{"fresh before", before, byFresh, 401},
		{"old during", during, byOld, 200},
		{"fresh during", during, byFresh, 200},
		{"old after", after, byOld, 401},
		{"fresh after", after, byFresh, 200},
	} {
		if got := status(c.site, c.token); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestAccess_ByRole(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	tokens := make(map[evently.Role]string)
	for _, role := range []evently.Role{evently.RoleUser, evently.RoleOrganizer, evently.RoleAdmin} {
		tokens[role], _ = w.token(t, role)
	}
	for path, least := range map[string]evently.Role{
		"/who": evently.RoleUser, "/organizers": evently.RoleOrganizer, "/admins": evently.RoleAdmin,
	} {
		w.do(t, "GET", path, "").problem(t, evently.CodeUnauthenticated)
		for role, token := range maps.All(tokens) {
			a := w.do(t, "GET", path, "", "Authorization", token)
			if role < least {
				a.problem(t, evently.CodeForbidden)
			} else if a.status >= 400 {
				t.Errorf("%s for %v: %d %s", path, role, a.status, a.body)
			}
		}
	}
}

func TestPublicRoutes_DoNotLookAtTokens(t *testing.T) {
	w := newSite(t, nil)
	if a := w.do(t, "GET", "/livez", "", "Authorization", "Bearer expired"); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestRefreshToken_Text(t *testing.T) {
	token, err := newRefreshToken(evently.SessionID{1, 2}, bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	text := token.String()
	if got, ok := parseRefreshToken(text); !ok || got != token {
		t.Errorf("%s reads as %+v", text, got)
	}
	for _, bad := range []string{
		"", "evr_", text[4:], text[:len(text)-1], text + "A", text + "=", strings.Replace(text, "evr_", "evs_", 1), text[:10] + "\n" + text[10:],
	} {
		if _, ok := parseRefreshToken(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := newRefreshToken(evently.SessionID{1}, strings.NewReader("short")); err == nil {
		t.Error("a token was made without enough randomness")
	}
}

func TestTokenConfig_IsChecked(t *testing.T) {
	key := bytes.Repeat([]byte("k"), SecretBytesMin)
	for name, secrets := range map[string][]Secret{
		"none": nil, "short": {{"a", key[1:]}}, "no name": {{"", key}},
		"long name": {{strings.Repeat("n", kidLenMax+1), key}}, "same name": {{"a", key}, {"a", key}},
	} {
		config := newConfig()
		config.Tokens.Secrets = secrets
		if _, err := New(config); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A node whose AccessTTL was lowered remembers revocations for that time only: tokens from before must not outlive it.
func TestToken_LivesNoLongerThanTheNodeAllows(t *testing.T) {
	long := newSite(t, func(c *Config) { c.Tokens.AccessTTL = time.Hour })
	token, _ := long.token(t, evently.RoleUser)
	short := newSite(t, func(c *Config) { c.Tokens.AccessTTL = time.Minute }, whoRoutes...)
	ask := func() *answer { return short.do(t, "GET", "/who", "", "Authorization", token) }
	short.clock.add(time.Minute - time.Second)
	if a := ask(); a.status != http.StatusOK {
		t.Errorf("before a minute: %d %s", a.status, a.body)
	}
	short.clock.add(time.Second)
	ask().problem(t, evently.CodeUnauthenticated)
}
