package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

const (
	adaRegisters = `{"email":" Ada@Example.COM ","password":"correct horse","name":" Ada "}`
	adaSignsIn   = `{"email":"ADA@example.com","password":"correct horse"}`
)

func (w *site) register(t *testing.T, body string) userJSON {
	t.Helper()
	a := w.do(t, "POST", "/register", body)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var got struct{ User userJSON }
	a.decode(t, &got)
	return got.User
}

func (w *site) login(t *testing.T, body string, headers ...string) tokensJSON {
	t.Helper()
	a := w.do(t, "POST", "/login", body, headers...)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var got tokensJSON
	a.decode(t, &got)
	return got
}

func refreshBody(token string) string { return fmt.Sprintf(`{"refresh_token":%q}`, token) }

func TestAccounts_RegisterSignInAndOut(t *testing.T) {
	w := newSite(t, nil)
	user := w.register(t, adaRegisters)
	if user.Email != "ada@example.com" || user.Name != "Ada" || user.Role != "user" || user.EmailVerified ||
		!user.CreatedAt.Equal(w.clock.Now()) {
		t.Errorf("%+v", user)
	}
	tokens := w.login(t, adaSignsIn)
	if tokens.TokenType != "Bearer" || tokens.ExpiresIn != 900 || tokens.AccessToken == "" || tokens.RefreshToken == "" {
		t.Errorf("%+v", tokens)
	}
	bearer := "Bearer " + tokens.AccessToken
	var me userJSON
	if w.do(t, "GET", "/me", "", "Authorization", bearer).decode(t, &me); me != user {
		t.Errorf("got %+v, want %+v", me, user)
	}
	if a := w.do(t, "POST", "/logout", "", "Authorization", bearer); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.do(t, "GET", "/me", "", "Authorization", bearer).problem(t, evently.CodeUnauthenticated)
	w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).problem(t, evently.CodeUnauthenticated)
}

// shape is a JSON answer without its values.
func shapeOfJSON(t *testing.T, body []byte) string {
	t.Helper()
	var tree any
	if err := json.Unmarshal(body, &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(node any) string
	walk = func(node any) string {
		if object, ok := node.(map[string]any); ok {
			var parts []string
			for _, key := range slices.Sorted(maps.Keys(object)) {
				parts = append(parts, key+":"+walk(object[key]))
			}
			return "{" + strings.Join(parts, ",") + "}"
		}
		return fmt.Sprintf("%T", node)
	}
	return walk(tree)
}

func TestRegister_DoesNotTellWhichAddressesAreTaken(t *testing.T) {
	w := newSite(t, nil)
	hashes := func() float64 { return testutil.ToFloat64(w.server.metrics.passwords) }
	free := w.do(t, "POST", "/register", adaRegisters)
	afterFree := hashes()
	taken := w.do(t, "POST", "/register", `{"email":"ada@example.com","password":"another password","name":"Eve"}`)
	if free.status != taken.status || shapeOfJSON(t, free.body) != shapeOfJSON(t, taken.body) {
		t.Errorf("free:  %d %s\ntaken: %d %s", free.status, free.body, taken.status, taken.body)
	}
	if afterFree != 1 || hashes()-afterFree != afterFree {
		t.Errorf("%v hashes for a free address, %v for a taken one", afterFree, hashes()-afterFree)
	}
	names := slices.Sorted(maps.Keys(free.header))
	if got := slices.Sorted(maps.Keys(taken.header)); !slices.Equal(got, names) {
		t.Errorf("headers %v and %v", names, got)
	}
	w.login(t, adaSignsIn) // the first password stands
	w.do(t, "POST", "/login", `{"email":"ada@example.com","password":"another password"}`).problem(t, evently.CodeInvalidCredentials)
}

func TestRegister_ChecksFields(t *testing.T) {
	w := newSite(t, nil)
	body := func(email, password, name string) string {
		text, err := json.Marshal(map[string]string{"email": email, "password": password, "name": name})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	long := strings.Repeat("x", emailBytesMax)
	for _, email := range []string{
		"", "ada", "@example.com", "ada@", "Ada <ada@example.com>", "ada@example.com, b@c.d", "a b@c.d", "a@b\x00.c", "a@[127.0.0.1]", long + "@example.com",
	} {
		w.do(t, "POST", "/register", body(email, "correct horse", "Ada")).field(t, "email")
	}
	for _, password := range []string{"", "1234567", strings.Repeat("p", PasswordRunesMax+1)} {
		w.do(t, "POST", "/register", body("ada@example.com", password, "Ada")).field(t, "password")
	}
	for _, name := range []string{"", "  ", strings.Repeat("é", userNameRunesMax+1), "a\x00b", "a\r\nb"} {
		w.do(t, "POST", "/register", body("ada@example.com", "correct horse", name)).field(t, "name")
	}
	if p := w.do(t, "POST", "/register", `{}`).problem(t, evently.CodeInvalidRequest); len(p.Errors) != 3 {
		t.Errorf("errors are %v", p.Errors)
	}
	w.do(t, "POST", "/register", `{"email":"ada@example.com","password":"correct horse","name":"Ada","role":"admin"}`).field(t, "role")
	if got := testutil.ToFloat64(w.server.metrics.passwords); got != 0 {
		t.Errorf("%v passwords hashed", got)
	}
	w.register(t, body("ada@example.com", strings.Repeat("é", PasswordRunesMax), strings.Repeat("é", userNameRunesMax)))
}

// An unknown user costs the same hash as a wrong password, and gets the same answer.
func TestLogin_DoesNotTellWhoIsRegistered(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	for name, body := range map[string]string{
		"wrong password": `{"email":"ada@example.com","password":"wrong horse"}`,
		"unknown user":   `{"email":"eve@example.com","password":"correct horse"}`,
		"no address":     `{"email":"nobody","password":"correct horse"}`,
		"no password":    `{"email":"ada@example.com","password":""}`,
		"nothing":        `{}`,
	} {
		before := testutil.ToFloat64(w.server.metrics.passwords)
		a := w.do(t, "POST", "/login", body)
		p := a.problem(t, evently.CodeInvalidCredentials)
		if p.Detail != evently.ErrInvalidCredentials.Detail || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s", name, a.body)
		}
		if got := testutil.ToFloat64(w.server.metrics.passwords) - before; got != 1 {
			t.Errorf("%s: %v hashes", name, got)
		}
	}
	w.do(t, "POST", "/login", `{"email":"ada@example.com","password":"`+strings.Repeat("p", PasswordRunesMax+1)+`"}`).
		problem(t, evently.CodeInvalidCredentials)
}

func TestRefresh_RotatesAndReuseEndsTheSession(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	first := w.login(t, adaSignsIn)
	other := w.login(t, adaSignsIn)
	refresh := func(token string) *answer { return w.do(t, "POST", "/token/refresh", refreshBody(token)) }
	w.clock.add(time.Hour) // the access token has expired
	var second tokensJSON
	if refresh(first.RefreshToken).decode(t, &second); second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Fatalf("%+v", second)
	}
	if a := w.do(t, "GET", "/me", "", "Authorization", "Bearer "+second.AccessToken); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	var third, again tokensJSON
	refresh(second.RefreshToken).decode(t, &third)
	// The answer was lost.
	w.clock.add(evently.RefreshGrace - time.Second)
	if refresh(second.RefreshToken).decode(t, &again); again.RefreshToken != third.RefreshToken {
		t.Errorf("repeated: got %s, want %s again", again.RefreshToken, third.RefreshToken)
	}
	// Somebody has a copy of the second token.
	w.clock.add(time.Second)
	a := refresh(second.RefreshToken)
	if a.problem(t, evently.CodeUnauthenticated); a.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
	refresh(third.RefreshToken).problem(t, evently.CodeUnauthenticated)
	if a := refresh(other.RefreshToken); a.status != http.StatusOK {
		t.Errorf("another session of the user: %d %s", a.status, a.body)
	}
	for _, token := range []string{"", "x", "evr_", third.AccessToken, third.RefreshToken + "x", third.RefreshToken[1:]} {
		refresh(token).problem(t, evently.CodeUnauthenticated)
	}
}

// A client that lost the answer of a refresh repeats it with its key, and keeps the session.
func TestRefresh_RepeatedWithItsKeyIsNoReuse(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	refresh := func() *answer {
		return w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken), "Idempotency-Key", "k")
	}
	first := refresh()
	sameAnswer(t, refresh(), first)
	var got tokensJSON
	first.decode(t, &got)
	if a := w.do(t, "GET", "/me", "", "Authorization", "Bearer "+got.AccessToken); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestSession_EndsAfterItsTime(t *testing.T) {
	w := newSite(t, func(c *Config) { c.Tokens.RefreshTTL = time.Hour })
	w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	w.clock.add(time.Hour)
	w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).problem(t, evently.CodeUnauthenticated)
}

func TestRefresh_TakesOverANewRole(t *testing.T) {
	w := newSite(t, nil, whoRoutes...)
	user := w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	id, err := evently.ParseUserID(user.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.accounts.users[id].Role = evently.RoleAdmin
	w.do(t, "GET", "/admins", "", "Authorization", "Bearer "+tokens.AccessToken).problem(t, evently.CodeForbidden)
	w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).decode(t, &tokens)
	if a := w.do(t, "GET", "/admins", "", "Authorization", "Bearer "+tokens.AccessToken); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestSessions_ListAndRevoke(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	begun := w.clock.Now()
	laptop := w.login(t, adaSignsIn, "User-Agent", "Laptop")
	w.clock.add(time.Minute)
	phone := w.login(t, adaSignsIn, "User-Agent", strings.Repeat("é", 101)+"\xff")
	list := func(access string) (got struct {
		Data       []sessionJSON `json:"data"`
		NextCursor *string       `json:"next_cursor"`
	},
	) {
		w.do(t, "GET", "/sessions", "", "Authorization", "Bearer "+access).decode(t, &got)
		return got
	}
	got := list(laptop.AccessToken)
	if len(got.Data) != 2 || got.NextCursor != nil {
		t.Fatalf("%+v", got)
	}
	newest, oldest := got.Data[0], got.Data[1]
	if newest.Current || newest.UserAgent != strings.Repeat("é", 100) || newest.IP != "127.0.0.1" ||
		!newest.CreatedAt.Equal(begun.Add(time.Minute)) {
		t.Errorf("%+v", newest)
	}
	if !oldest.Current || oldest.UserAgent != "Laptop" || !oldest.LastUsedAt.Equal(begun) ||
		!oldest.ExpiresAt.Equal(begun.Add(refreshTTLDefault)) {
		t.Errorf("%+v", oldest)
	}
	revoke := func(access, id string) *answer {
		return w.do(t, "DELETE", "/sessions/"+id, "", "Authorization", "Bearer "+access)
	}
	eve, _ := w.token(t, evently.RoleAdmin)
	revoke(strings.TrimPrefix(eve, "Bearer "), newest.ID).problem(t, evently.CodeNotFound)
	for _, id := range []string{"x", "ses_", strings.ToUpper(newest.ID), sessionText(evently.SessionID{9})} {
		revoke(laptop.AccessToken, id).problem(t, evently.CodeNotFound)
	}
	if a := revoke(laptop.AccessToken, newest.ID); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.do(t, "GET", "/me", "", "Authorization", "Bearer "+phone.AccessToken).problem(t, evently.CodeUnauthenticated)
	revoke(laptop.AccessToken, newest.ID).problem(t, evently.CodeNotFound)
	if got := list(laptop.AccessToken); len(got.Data) != 1 || !got.Data[0].Current {
		t.Errorf("%+v", got)
	}
}

func TestAccounts_StorageFailures(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	authorization := []string{"Authorization", "Bearer " + tokens.AccessToken}
	w.accounts.failWith(fmt.Errorf("%w: %w", evently.ErrUnavailable, errors.New("connection refused")))
	for name, a := range map[string]*answer{
		"register": w.do(t, "POST", "/register", adaRegisters),
		"login":    w.do(t, "POST", "/login", adaSignsIn),
		"refresh":  w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)),
		"me":       w.do(t, "GET", "/me", "", authorization...),
		"sessions": w.do(t, "GET", "/sessions", "", authorization...),
		"revoke":   w.do(t, "DELETE", "/sessions/"+sessionText(evently.SessionID{1}), "", authorization...),
		"logout":   w.do(t, "POST", "/logout", "", authorization...),
	} {
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	w.accounts.failWith(nil)
	if a := w.do(t, "GET", "/me", "", authorization...); a.status != http.StatusOK {
		t.Errorf("a logout that failed ended the session: %d", a.status)
	}
}

func TestMe_OfAUserWhoIsGone(t *testing.T) {
	w := newSite(t, nil)
	token, who := w.token(t, evently.RoleUser)
	delete(w.accounts.users, who.User)
	w.do(t, "GET", "/me", "", "Authorization", token).problem(t, evently.CodeUnauthenticated)
}

func TestNormalizeEmail(t *testing.T) {
	for text, want := range map[string]string{"a@b.c": "a@b.c", "\t A.B+c@D.E \n": "a.b+c@d.e", "Ü@Bücher.example": "ü@bücher.example"} {
		if got, err := NormalizeEmail(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

// Who lost the answer to a logout gets it again with the key, though the session has ended; but can do nothing any more.
func TestLogout_RepeatedWithItsKey(t *testing.T) {
	w := newSite(t, nil)
	bearer, _ := w.token(t, evently.RoleUser)
	logout := func(key string) *answer {
		return w.do(t, "POST", "/logout", "", "Authorization", bearer, "Idempotency-Key", key)
	}
	first := logout("k")
	if first.status != http.StatusNoContent {
		t.Fatalf("%d %s", first.status, first.body)
	}
	sameAnswer(t, logout("k"), first)
	for name, a := range map[string]*answer{
		"another key": logout("k2"), "no key": w.do(t, "POST", "/logout", "", "Authorization", bearer),
		"another route": w.do(t, "GET", "/me", "", "Authorization", bearer),
	} {
		if a.problem(t, evently.CodeUnauthenticated); a.header.Get("WWW-Authenticate") != challengeInvalid[0] {
			t.Errorf("%s: %v", name, a.header)
		}
	}
	if n := len(w.answers.all()); n != 1 {
		t.Errorf("%d answers are stored", n)
	}
}
