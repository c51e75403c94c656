/** The page's beginning: the language, then the one who is signed in, or the first screen. */

import { account, remember, settings } from './account.js';
import { App } from './app.js';
import { preferred, speak } from './i18n.js';
import { signIn } from '../views/signin.js';

sessionStorage.removeItem('hikyaku.tries');
speak(preferred(settings().lang));
const found = account();
const start = (chosen) => App.open(remember(chosen));
if (found) await start(found);
else signIn({ start });
