/** The page's beginning: the language, then the one who is signed in, or the first screen. */

import { account, remember, settings } from './account.js';
import { App } from './app.js';
import { preferred, speak } from './i18n.js';
import { reason, signIn } from '../views/signin.js';

sessionStorage.removeItem('hikyaku.tries');
speak(preferred(settings().lang));
const found = account();
const start = (chosen) => App.open(remember(chosen));
if (found) {
  const app = await start(found);
  const why = reason();
  if (why) app.toast(why);
} else signIn({ start });
