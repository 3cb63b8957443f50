package http

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
	"github.com/evently/evently/http/apitest"
)

// lastCode is the code in the mail that was asked for last.
func (w *site) lastCode(t *testing.T, purpose evently.CodePurpose) string {
	t.Helper()
	mails := w.accounts.mailed()
	if len(mails) == 0 || mails[len(mails)-1].Purpose != purpose {
		t.Fatalf("no mail for %s: %+v", purpose, mails)
	}
	return mails[len(mails)-1].Code
}

func codeBody(email, code string) string { return fmt.Sprintf(`{"email":%q,"code":%q}`, email, code) }

func resetBody(email, code, password string) string {
	return fmt.Sprintf(`{"email":%q,"code":%q,"new_password":%q}`, email, code, password)
}

// another is a code that is not this one.
func another(code string) string { return string('0'+(code[0]-'0'+1)%10) + code[1:] }

func TestVerify_MailedCodeVerifiesOnce(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	user := w.register(t, adaRegisters)
	mail := w.accounts.mailed()[0]
	if mail.To != "ada@example.com" || mail.Name != "Ada" || len(mail.Code) != codeDigits || !mail.ExpiresAt.Equal(w.clock.Now().Add(10*time.Minute)) {
		t.Errorf("%+v", mail)
	}
	w.do(t, "POST", "/verify", codeBody("ada@example.com", another(mail.Code))).problem(t, evently.CodeInvalidCode)
	var got registeredJSON
	w.do(t, "POST", "/verify", codeBody(" ADA@example.com", " "+mail.Code+"\n")).decode(t, &got)
	if user.EmailVerified = true; got.User != user {
		t.Errorf("got %+v, want %+v", got.User, user)
	}
	w.do(t, "POST", "/verify", codeBody("ada@example.com", mail.Code)).problem(t, evently.CodeInvalidCode)
}

// Whatever is wrong is answered alike.
func TestVerify_TellsNothing(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	code := w.lastCode(t, evently.VerifyEmailCode)
	w.clock.add(evently.CodePause)
	if a := w.do(t, "POST", "/password/forgot", `{"email":"ada@example.com"}`); a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	reset := w.lastCode(t, evently.ResetPasswordCode)
	answers := map[string]*answer{
		"wrong code":      w.do(t, "POST", "/verify", codeBody("ada@example.com", another(code))),
		"unknown address": w.do(t, "POST", "/verify", codeBody("eve@example.com", code)),
		"reset, wrong":    w.do(t, "POST", "/password/reset", resetBody("ada@example.com", another(reset), "a new password")),
		"reset, unknown":  w.do(t, "POST", "/password/reset", resetBody("eve@example.com", reset, "a new password")),
		"other purpose":   w.do(t, "POST", "/password/reset", resetBody("ada@example.com", code, "a new password")),
	}
	w.clock.add(evently.CodeTTL)
	answers["expired"] = w.do(t, "POST", "/verify", codeBody("ada@example.com", code))
	for name, a := range answers {
		p := a.problem(t, evently.CodeInvalidCode)
		if p.Detail != evently.ErrInvalidCode.Detail || p.Status != http.StatusBadRequest {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	for _, code := range []string{"", "12345", "1234567", "12345a", "１２３４５６", "-12345"} {
		w.do(t, "POST", "/verify", codeBody("ada@example.com", code)).field(t, "code")
	}
	w.do(t, "POST", "/verify", codeBody("ada", "123456")).field(t, "email")
	if p := w.do(t, "POST", "/password/reset", "{}").problem(t, evently.CodeInvalidRequest); len(p.Errors) != 3 {
		t.Errorf("errors are %v", p.Errors)
	}
}

// Nobody learns from an answer whether there is an account, nor from the work or the least time that it took.
func TestCodes_AreMailedWithoutTellingToWhom(t *testing.T) {
	w := newSite(t, nil)
	w.register(t, adaRegisters)
	var first *answer
	for _, path := range []string{"/verify/resend", "/password/forgot"} {
		w.clock.add(evently.CodePause)
		before := len(w.accounts.mailed())
		for _, email := range []string{"eve@example.com", "Ada@example.com", "ada@example.com"} {
			begun := time.Now()
			a := w.do(t, "POST", path, fmt.Sprintf(`{"email":%q}`, email))
			if took := time.Since(begun); took < secretWorkMin {
				t.Errorf("%s of %s took %s", path, email, took)
			}
			if first == nil {
				first = a
			}
			if a.status != http.StatusAccepted || !bytes.Equal(a.body, first.body) {
				t.Errorf("%s of %s: %d %s", path, email, a.status, a.body)
			}
		}
		if n := len(w.accounts.mailed()) - before; n != 1 { // the third comes too soon
			t.Errorf("%s: %d mails", path, n)
		}
		w.do(t, "POST", path, `{"email":"ada"}`).field(t, "email")
	}
	// Who is verified needs no code to be it.
	w.do(t, "POST", "/password/reset", resetBody("ada@example.com", w.lastCode(t, evently.ResetPasswordCode), "a new password"))
	w.clock.add(evently.CodePause)
	before := len(w.accounts.mailed())
	if a := w.do(t, "POST", "/verify/resend", `{"email":"ada@example.com"}`); a.status != http.StatusAccepted || len(w.accounts.mailed()) != before {
		t.Errorf("%d %s, %d mails", a.status, a.body, len(w.accounts.mailed())-before)
	}
}

// A code that was mailed before the secret was changed is good until the secret is gone.
func TestCodes_OutliveARotationOfTheSecret(t *testing.T) {
	fresh := Secret{KID: "k2", Key: []byte("fedcba9876543210fedcba9876543210")}
	old := newSite(t, nil)
	old.register(t, adaRegisters)
	code := old.lastCode(t, evently.VerifyEmailCode)
	with := func(secrets ...Secret) *site {
		w := newSite(t, func(c *Config) { c.Accounts, c.Tokens.Secrets = old.accounts, secrets })
		return w
	}
	with(fresh).do(t, "POST", "/verify", codeBody("ada@example.com", code)).problem(t, evently.CodeInvalidCode)
	if a := with(fresh, testSecret).do(t, "POST", "/verify", codeBody("ada@example.com", code)); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestReset_ReplacesThePasswordAndEndsEverySession(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	w.do(t, "POST", "/password/forgot", `{"email":"ada@example.com"}`)
	code := w.lastCode(t, evently.ResetPasswordCode)
	a := w.do(t, "POST", "/password/reset", resetBody("ada@example.com", code, "a new password"))
	if a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.do(t, "GET", "/me", "", "Authorization", "Bearer "+tokens.AccessToken).problem(t, evently.CodeUnauthenticated)
	w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).problem(t, evently.CodeUnauthenticated)
	w.do(t, "POST", "/login", adaSignsIn).problem(t, evently.CodeInvalidCredentials)
	tokens = w.login(t, `{"email":"ada@example.com","password":"a new password"}`)
	var me userJSON
	if w.do(t, "GET", "/me", "", "Authorization", "Bearer "+tokens.AccessToken).decode(t, &me); !me.EmailVerified {
		t.Errorf("%+v: who reads the mail owns the address", me)
	}
	w.do(t, "POST", "/password/reset", resetBody("ada@example.com", code, "another password")).problem(t, evently.CodeInvalidCode)
	w.client = http.DefaultClient // what is wrong on purpose is not held to the document
	w.do(t, "POST", "/password/reset", resetBody("ada@example.com", code, "short")).field(t, "new_password")
}

func TestChangePassword_NeedsTheOldOneAndEndsOtherSessions(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	w.register(t, adaRegisters)
	laptop, phone := w.login(t, adaSignsIn), w.login(t, adaSignsIn)
	change := func(old, fresh string) *answer {
		body := fmt.Sprintf(`{"password":%q,"new_password":%q}`, old, fresh)
		return w.do(t, "POST", "/me/password", body, "Authorization", "Bearer "+laptop.AccessToken)
	}
	change("wrong horse", "a new password").field(t, "password")
	if a := change("correct horse", "a new password"); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.do(t, "GET", "/me", "", "Authorization", "Bearer "+phone.AccessToken).problem(t, evently.CodeUnauthenticated)
	if a := w.do(t, "GET", "/me", "", "Authorization", "Bearer "+laptop.AccessToken); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.login(t, `{"email":"ada@example.com","password":"a new password"}`)
	// Guesses count as failed sign-ins.
	for range evently.SignInFailuresMax {
		change("wrong horse", "a new password").field(t, "password")
	}
	change("a new password", "another password").problem(t, evently.CodeRateLimited)
	w.client = http.DefaultClient
	change("a new password", "short").field(t, "new_password")
}

// All codes are drawn alike: what would favour the low ones is drawn again.
func TestNewCode_IsUniform(t *testing.T) {
	w := newSite(t, nil)
	draws := func(numbers ...uint32) io.Reader {
		var raw []byte
		for _, n := range numbers {
			raw = binary.BigEndian.AppendUint32(raw, n)
		}
		return bytes.NewReader(raw)
	}
	user := &evently.User{ID: 1, Email: "ada@example.com", Name: "Ada"}
	for want, drawn := range map[string][]uint32{
		"000000": {0}, "000042": {42}, "999999": {999_999}, "000001": {1_000_001}, "967295": {4_293_967_295},
		"000007": {4_294_967_295, 4_294_000_000, 7},
	} {
		w.server.config.Rand = draws(drawn...)
		code, err := w.server.newCode(user, evently.VerifyEmailCode)
		if err != nil || code.Mail.Code != want {
			t.Errorf("%d: got %+v %v, want %s", drawn, code, err, want)
		}
	}
	w.server.config.Rand = draws()
	if _, err := w.server.newCode(user, evently.VerifyEmailCode); err == nil {
		t.Error("a code without randomness")
	}
}

// What is stored is bound to the user, the purpose and the secret.
func TestCodeMAC_IsBound(t *testing.T) {
	keys, err := newAccountKeys([]Secret{testSecret, {KID: "k2", Key: []byte(strings.Repeat("x", 40))}})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[[32]byte]string)
	for _, c := range []struct {
		key     []byte
		user    evently.UserID
		purpose evently.CodePurpose
		code    string
	}{
		{keys[0].code, 1, evently.VerifyEmailCode, "000042"},
		{keys[0].code, 1, evently.VerifyEmailCode, "000043"},
		{keys[0].code, 1, evently.ResetPasswordCode, "000042"},
		{keys[0].code, 2, evently.VerifyEmailCode, "000042"},
		{keys[1].code, 1, evently.VerifyEmailCode, "000042"},
		{keys[0].refresh, 1, evently.VerifyEmailCode, "000042"},
		{testSecret.Key, 1, evently.VerifyEmailCode, "000042"},
	} {
		mac := codeMAC(c.key, c.user, c.purpose, c.code)
		if other, found := seen[mac]; found {
			t.Errorf("%+v is stored as %s", c, other)
		}
		seen[mac] = fmt.Sprintf("%+v", c)
	}
}

func TestRequireVerifiedEmail_BooksOnlyThen(t *testing.T) {
	box := new(fakeBox)
	w := newRequiringSite(t, box)
	event := box.add(box.event(1, 9, seats("Floor", 10, 100)), nil)
	w.register(t, adaRegisters)
	tokens := w.login(t, adaSignsIn)
	book := func(key string) *answer {
		return w.do(t, "POST", "/events/"+event.ID.String()+"/book", `{"quantity":1}`, "Authorization", "Bearer "+tokens.AccessToken, "Idempotency-Key", key)
	}
	book("1").problem(t, evently.CodeEmailUnverified)
	lookups := w.accounts.lookedUp()
	book("1").problem(t, evently.CodeEmailUnverified)
	if n := w.accounts.lookedUp(); n != lookups {
		t.Errorf("%d look-ups within a second", n-lookups)
	}
	a := w.do(t, "POST", "/events/"+event.ID.String()+"/waitlist", `{"quantity":1}`,
		"Authorization", "Bearer "+tokens.AccessToken, "Idempotency-Key", "w")
	a.problem(t, evently.CodeEmailUnverified)

	// The same token is good at once where the code was entered, and elsewhere within a second.
	elsewhere := newRequiringSite(t, box)
	elsewhere.accounts = w.accounts
	elsewhere.server.config.Accounts, elsewhere.server.verified.accounts = w.accounts, w.accounts
	there := func() *answer {
		return elsewhere.do(t, "POST", "/events/"+event.ID.String()+"/book", `{"quantity":1}`,
			"Authorization", "Bearer "+tokens.AccessToken, "Idempotency-Key", "3")
	}
	there().problem(t, evently.CodeEmailUnverified)
	if a := w.do(t, "POST", "/verify", codeBody("ada@example.com", w.lastCode(t, evently.VerifyEmailCode))); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := book("1"); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	elsewhere.clock.add(unverifiedTTL)
	if a := there(); a.status != http.StatusCreated {
		t.Errorf("elsewhere: %d %s", a.status, a.body)
	}
	// A new token says so itself.
	lookups = w.accounts.lookedUp()
	w.do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).decode(t, &tokens)
	w.server.verified = newVerifiedUsers(&w.server.config)
	if a := book("2"); a.status != http.StatusCreated || w.accounts.lookedUp() != lookups {
		t.Errorf("%d %s, %d look-ups", a.status, a.body, w.accounts.lookedUp()-lookups)
	}
	// A database that is away refuses nobody for good.
	w.register(t, `{"email":"eve@example.com","password":"correct horse","name":"Eve"}`)
	tokens = w.login(t, `{"email":"eve@example.com","password":"correct horse"}`)
	w.accounts.failWith(evently.ErrUnavailable)
	book("4").problem(t, evently.CodeUnavailable)
}

// newRequiringSite starts a site that wants verified addresses.
func newRequiringSite(t *testing.T, box *fakeBox) *site {
	t.Helper()
	if box.ledgers == nil {
		box.ledgers = make(map[evently.EventID]*evently.Ledger)
		box.rows = make(map[evently.ReservationID]evently.Reservation)
	}
	w := newSite(t, func(config *Config) {
		config.Engine, config.Catalogue, config.History, config.RequireVerifiedEmail = box, box, box, true
	})
	box.clock = w.clock
	w.client = apitest.NewClient(t, w.url)
	return w
}

func (f *fakeAccounts) lookedUp() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lookups
}

// A wrong address or password is answered alike before, in and after the delay, with and without an account.
func TestLogin_FailuresDelayWhoeverAsks(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	w.register(t, adaRegisters)
	session := w.login(t, adaSignsIn)
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		wrong := fmt.Sprintf(`{"email":%q,"password":"wrong horse"}`, email)
		for range evently.SignInFailuresMax {
			w.do(t, "POST", "/login", wrong).problem(t, evently.CodeInvalidCredentials)
		}
		hashes := testutil.ToFloat64(w.server.metrics.passwords)
		for _, body := range []string{wrong, fmt.Sprintf(`{"email":%q,"password":"correct horse"}`, strings.ToUpper(email))} {
			a := w.do(t, "POST", "/login", body)
			if a.problem(t, evently.CodeRateLimited); a.header.Get("Retry-After") != "15" || a.header.Get("RateLimit") != `"signin";r=0;t=15` ||
				a.header.Get("RateLimit-Policy") != `"signin";q=5;w=900` {
				t.Errorf("%s: %v", email, a.header)
			}
		}
		if n := testutil.ToFloat64(w.server.metrics.passwords); n != hashes {
			t.Errorf("%s: %v hashes for refusals", email, n-hashes)
		}
	}
	if a := w.do(t, "GET", "/me", "", "Authorization", "Bearer "+session.AccessToken); a.status != http.StatusOK {
		t.Errorf("a session from before: %d", a.status)
	}
	w.do(t, "POST", "/token/refresh", refreshBody(session.RefreshToken)).decode(t, &session)
	// The owner gets in by a reset.
	w.do(t, "POST", "/password/forgot", `{"email":"ada@example.com"}`)
	w.do(t, "POST", "/password/reset", resetBody("ada@example.com", w.lastCode(t, evently.ResetPasswordCode), "a new password"))
	w.login(t, `{"email":"ada@example.com","password":"a new password"}`)
	// Others wait, and then once more.
	w.clock.add(evently.SignInDelayMin)
	wrong := `{"email":"nobody@example.com","password":"wrong horse"}`
	w.do(t, "POST", "/login", wrong).problem(t, evently.CodeInvalidCredentials)
	if a := w.do(t, "POST", "/login", wrong); a.header.Get("Retry-After") != "30" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

func TestSessions_SignOutEverywhereElse(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	w.register(t, adaRegisters)
	laptop, phone, tablet := w.login(t, adaSignsIn), w.login(t, adaSignsIn), w.login(t, adaSignsIn)
	if a := w.do(t, "DELETE", "/sessions", "", "Authorization", "Bearer "+phone.AccessToken); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		tokens tokensJSON
		want   int
	}{"laptop": {laptop, 401}, "phone": {phone, 200}, "tablet": {tablet, 401}} {
		if a := w.do(t, "GET", "/me", "", "Authorization", "Bearer "+c.tokens.AccessToken); a.status != c.want {
			t.Errorf("%s: %d, want %d", name, a.status, c.want)
		}
	}
}

func TestSecurityLog_IsOnesOwn(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	user := w.register(t, adaRegisters)
	w.do(t, "POST", "/login", `{"email":"ada@example.com","password":"wrong horse"}`, "User-Agent", "Eve's", "X-Request-Id", "req-9")
	tokens := w.login(t, adaSignsIn, "User-Agent", "Laptop")
	type list struct {
		Data       []securityEntryJSON `json:"data"`
		NextCursor *string             `json:"next_cursor"`
	}
	read := func(query string) (got list) {
		w.do(t, "GET", "/me/security"+query, "", "Authorization", "Bearer "+tokens.AccessToken).decode(t, &got)
		return got
	}
	got := read("")
	var kinds []string
	for _, entry := range got.Data {
		kinds = append(kinds, string(entry.Kind))
	}
	if strings.Join(kinds, " ") != "signed_in sign_in_failed code_sent registered" || got.NextCursor != nil {
		t.Fatalf("%q %v", kinds, got.NextCursor)
	}
	signedIn, failed := got.Data[0], got.Data[1]
	if signedIn.ActorID == nil || *signedIn.ActorID != user.ID || signedIn.SessionID == nil || signedIn.UserAgent != "Laptop" || signedIn.IP != "127.0.0.1" {
		t.Errorf("%+v", signedIn)
	}
	if failed.ActorID != nil || failed.SessionID != nil || failed.UserAgent != "Eve's" || failed.RequestID != "req-9" {
		t.Errorf("%+v", failed)
	}
	first := read("?limit=3")
	if len(first.Data) != 3 || first.NextCursor == nil {
		t.Fatalf("%+v", first)
	}
	if rest := read("?limit=3&cursor=" + *first.NextCursor); len(rest.Data) != 1 || rest.Data[0].Kind != evently.SecurityRegistered || rest.NextCursor != nil {
		t.Errorf("%+v", rest)
	}
}
